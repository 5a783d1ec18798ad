-- Accepting jobs.

local ACCEPT_ARGUMENTS = 6
local accepted = 0
-- Fields and values that new jobs bring to subjects.
local subjects = {}
-- By id, what the records of jobs to accept tell already; need_to_accept asks.
local known_sha256 = {}

local function write_job(id, task, payload, sha256, run_id, request_id)
  redis.call('HSET', job_key(id), 'task', task, 'sha256', sha256, 'run_id', run_id, 'request_id', request_id,
    'accepted_at', now, 'changed_at', now, 'state', 'accepted')
  redis.call('SET', prefix .. 'payload:' .. id, payload)
  make_ready(id, task)
  add_event('accepted', id, task, run_id, request_id)
  accepted = accepted + 1
  table.insert(subjects, TASKS[task].topic .. ':' .. run_id)
  table.insert(subjects, id)
end

-- Six arguments: id, task, payload, sha256, run id, request id. Answers new, repeat or conflict.
local function accept_one()
  local id, task, payload, sha256, run_id, request_id = arg(), arg(), arg(), arg(), arg(), arg()
  local known = known_sha256[id]
  if known then
    return known == sha256 and 'repeat' or 'conflict'
  end
  write_job(id, task, payload, sha256, run_id, request_id)
  known_sha256[id] = sha256
  return 'new'
end

-- Makes sure of all that accept_one will write for the next jobs among the arguments, without taking them.
local function need_to_accept(amount)
  local queues = {}
  for index = 0, amount - 1 do
    local id, task = ARGV[cursor + 1 + index * ACCEPT_ARGUMENTS], ARGV[cursor + 2 + index * ACCEPT_ARGUMENTS]
    local sha256 = redis.pcall('HGET', job_key(id), 'sha256')
    if type(sha256) == 'table' then
      need_record(id)
    end
    known_sha256[id] = sha256
    queues[TASKS[task].queue] = true
  end
  for queue in pairs(queues) do
    need('zset', ready_key(queue))
  end
  need('hash', prefix .. 'subjects')
  need('hash', prefix .. 'counts')
end

local function write_subjects()
  call_with('HSET', prefix .. 'subjects', subjects)
  subjects = {}
end

-- accept: number of jobs, then accept_one's arguments for each. Answers one outcome for each.
function operations.accept()
  local outcomes, amount = {}, number_arg()
  need_to_accept(amount)
  for index = 1, amount do
    outcomes[index] = accept_one()
  end
  write_subjects()
  return outcomes
end
