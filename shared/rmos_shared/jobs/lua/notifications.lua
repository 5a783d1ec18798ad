-- Notifications: what stands on a queue, how it is read, and how workers are woken.

-- Nil for an id without a record, or with a task of another version. Such jobs stay where they are, where
-- doctor finds them, and must not keep the others from their turn.
local function spec_of(id)
  return TASKS[field(id, 'task')]
end

-- What Flower shows of a notification, as JSON: the number of jobs, their task, and the run of the first. In plain
-- ASCII, whatever another program wrote into the record: a notification that is no UTF-8 could not be read.
local function argsrepr_of(task, ids, run_id, request_id)
  local argsrepr = task .. ', ' .. #ids .. ' job(s), run ' .. run_id
    .. (request_id ~= '' and ', request ' .. request_id or '')
  return cjson.encode((string.gsub(argsrepr, '[^ -~]', '?')))
end

-- A notification as Celery takes it: no payload, only the ids. Two notifications differ in the arguments of this
-- function alone, so what is not byte for byte such a text is not ours.
local function notification(task, ids, message_id, argsrepr)
  return '{"body":"[[[\\"' .. table.concat(ids, '\\",\\"') .. '\\"]],{},{}]","content-encoding":"utf-8"'
    .. ',"content-type":"application/json","headers":{"task":"' .. task .. '","id":"' .. message_id
    .. '","argsrepr":' .. argsrepr .. '},"properties":{"delivery_tag":"' .. message_id
    .. '","delivery_info":{"exchange":"","routing_key":"' .. TASKS[task].queue .. '"}}}'
end
local NOTIFICATION = '^{"body":"%[%[%[\\"([^%]]+)\\"%]%],.-"headers":{"task":"([^"]+)","id":"([^"]+)","argsrepr":(".-")},"prop'

-- The notification in a raw item, as {task, ids, id, fresh}: fresh when none of the jobs has crashed. Or nil, with
-- the reason and detail that keep it off the workers: it is no notification of ours for jobs that we know.
local function read_notification(item, queue)
  if #item > MAX_NOTIFICATION_BYTES then
    return nil, 'malformed_message', 'larger than any notification'
  end
  local joined, task, message_id, argsrepr = string.match(item, NOTIFICATION)
  local spec = task and TASKS[task]
  if not task then
    return nil, 'malformed_message', 'not a notification as the ledger writes them'
  elseif spec and spec.queue ~= queue then
    return nil, 'malformed_message', 'a notification of another queue'
  end
  local ids, seen, twice, known, fresh, whole, first = {}, {}, false, true, true, true, nil
  for id in string.gmatch(joined, '[^\\",]+') do
    local record = fields(id, 'task', 'crash_count', 'run_id', 'request_id')
    whole = whole and record ~= nil
    record = record or {}
    first = first or record
    table.insert(ids, id)
    known = known and record[1] == task
    fresh = fresh and number(record[2]) == 0
    twice = twice or seen[id]
    seen[id] = true
  end
  if not whole then
    -- What lies in a record's place may be taken away again; until then nobody can tell whose notification it is.
    return nil, 'not_now', ''
  elseif not spec then
    if known and #ids > 0 then
      return nil, 'not_now', ''
    end
    return nil, 'malformed_message', 'not a notification as the ledger writes them'
  elseif twice or #ids < 1 or #ids > spec.ids_per_notification or notification(task, ids, message_id, argsrepr) ~= item then
    return nil, 'malformed_message', 'not a notification as the ledger writes them'
  elseif message_id ~= ids[1] and not (string.sub(message_id, 1, #ids[1]) == ids[1]
      and string.match(string.sub(message_id, #ids[1] + 1), '^~%d+$')) then
    return nil, 'malformed_message', 'not a notification as the ledger writes them'
  elseif not known then
    return nil, 'unknown_job', 'the ledger has no such job on this queue'
  end
  local run_id, request_id = first[3] or '', first[4] or ''
  if argsrepr_of(task, ids, run_id, request_id) ~= argsrepr then
    return nil, 'malformed_message', 'not a notification as the ledger writes them'
  end
  return {task = task, ids = ids, message_id = message_id, fresh = fresh, run_id = run_id,
    request_id = request_id}
end

-- Jobs to notify when the operation ends: {id, task, whether again, whether alone}.
local ready = {}

local function notify(id, task, again, alone, run_id, request_id)
  table.insert(ready, {id, task, again, alone, run_id, request_id})
end

-- Of a job whose task is known, see spec_of.
local function notify_again(id)
  local record = fields(id, 'task', 'crash_count', 'run_id', 'request_id')
  redis.call('HSET', job_key(id), 'state', 'accepted', 'changed_at', now, 'again', 1)
  redis.call('HDEL', job_key(id), 'lease')
  notify(id, record[1], true, number(record[2]) > 0, record[3] or '', record[4] or '')
end

local function wake(queue, most)
  local tokens = prefix .. 'wake:' .. queue
  local waiting = redis.pcall('LLEN', tokens)
  if type(waiting) ~= 'number' then
    redis.call('DEL', tokens)
    waiting = 0
  end
  for _ = 1, math.min(most, MAX_TOKENS - waiting) do
    redis.call('LPUSH', tokens, 1)
  end
end

-- The keys that a notification for a queue will write.
local function need_queue(queue)
  need('zset', prefix .. 'notified:' .. queue)
  need('list', queue)
end

-- One notification for as many jobs in a row as their task allows, but one of its own for a job that
-- crashed: it may be what killed its worker. The first notification of a job bears its id, so that
-- Flower finds it by that; later ones have ids of their own, or revoking the first would silence them.
local function send_notifications()
  local notified, position = {}, 1
  while position <= #ready do
    local first, ids, times = ready[position], {}, {}
    local spec = TASKS[first[2]]
    repeat
      table.insert(ids, ready[position][1])
      table.insert(times, now)
      table.insert(times, ready[position][1])
      position = position + 1
      local following = ready[position]
    until #ids == spec.ids_per_notification or first[4] or not following or following[4] or following[2] ~= first[2]
      or following[3] ~= first[3]
    local message_id = first[3] and ids[1] .. '~' .. next_number(prefix .. 'notifications') or ids[1]
    call_with('ZADD', prefix .. 'notified:' .. spec.queue, times)
    redis.call('LPUSH', spec.queue, notification(first[2], ids, message_id, argsrepr_of(first[2], ids, first[5], first[6])))
    notified[spec.queue] = (notified[spec.queue] or 0) + 1
  end
  for _, queue in ipairs(QUEUES) do
    if notified[queue] then
      if type(redis.pcall('SADD', prefix .. 'queues', queue)) ~= 'number' then
        redis.call('DEL', prefix .. 'queues') -- each version adds its own again
        redis.call('SADD', prefix .. 'queues', queue)
      end
      wake(queue, notified[queue])
    end
  end
end
