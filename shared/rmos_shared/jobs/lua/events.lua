-- The stream of events: every change of a job's state, in the order in which they happened.

-- Of one entry; a larger group of jobs takes several, so that an entry is of bounded size.
local MOST_EVENTS_PER_ENTRY = 25
-- Entries that are kept, about; older ones go. With entries that are full of usual ids some 30 MB.
local MOST_EVENT_ENTRIES = 10000
-- Runs of changes to the same state: {state, again, lines}. They are written when the operation ends.
local changes = {}

-- ``again`` is true of a job that is in line once more: it was accepted before.
local function add_event(state, id, task, run_id, request_id, again)
  local last = changes[#changes]
  if not last or last.state ~= state or last.again ~= again or #last.lines == MOST_EVENTS_PER_ENTRY then
    last = {state = state, again = again, lines = {}}
    table.insert(changes, last)
  end
  table.insert(last.lines, id .. '\t' .. task .. '\t' .. run_id .. '\t' .. request_id)
end

-- As add_event, of a job whose record is not at hand.
local function add_event_of(state, id, again)
  local record = fields(id, 'task', 'run_id', 'request_id') or {}
  add_event(state, id, record[1] or '', record[2] or '', record[3] or '', again)
end

-- No job rests on the stream: what is of a wrong type, or takes no more entries, is made anew. Its readers notice.
local function write_events()
  local key = prefix .. 'events'
  for _, change in ipairs(changes) do
    local entry = {'state', change.state, 'jobs', table.concat(change.lines, '\n')}
    if change.again then
      table.insert(entry, 'again')
      table.insert(entry, 1)
    end
    if type(redis.pcall('XADD', key, 'MAXLEN', '~', MOST_EVENT_ENTRIES, '*', unpack(entry))) ~= 'string' then
      redis.call('DEL', key)
      redis.call('XADD', key, '*', unpack(entry))
    end
  end
end

-- announce: what happened, run id, request id. For what happens to a run without a job.
function operations.announce()
  local what, run_id, request_id = arg(), arg(), arg()
  add_event(what, '', '', run_id, request_id)
end
