-- Ready jobs: how they are put in line, how workers are woken, and the notification that a worker gets.

-- Nil for an id without a record, or with a task of another version. Such jobs stay where they are, where
-- doctor finds them, and must not keep the others from their turn.
local function spec_of(id)
  return TASKS[field(id, 'task')]
end

local function ready_key(queue)
  return prefix .. 'ready:' .. queue
end

-- A notification as Celery takes it: no payload, only the ids. What Flower shows of it is plain ASCII, whatever
-- another program wrote into the record: a notification that is no UTF-8 could not be read. The first notification
-- of a job bears its id, so that Flower finds it by that; later ones have ids of their own, or revoking the first
-- would silence them.
local function notification(task, ids, run_id, request_id)
  local times = redis.pcall('HINCRBY', job_key(ids[1]), 'take_count', 1)
  local message_id = times == 1 and ids[1] or ids[1] .. '~' .. (type(times) == 'number' and times or now)
  local argsrepr = task .. ', ' .. #ids .. ' job(s), run ' .. run_id
    .. (request_id ~= '' and ', request ' .. request_id or '')
  return '{"body":"[[[\\"' .. table.concat(ids, '\\",\\"') .. '\\"]],{},{}]","content-encoding":"utf-8"'
    .. ',"content-type":"application/json","headers":{"task":"' .. task .. '","id":"' .. message_id
    .. '","argsrepr":' .. cjson.encode((string.gsub(argsrepr, '[^ -~]', '?')))
    .. '},"properties":{"delivery_tag":"' .. message_id .. '","delivery_info":{"exchange":"","routing_key":"'
    .. TASKS[task].queue .. '"}}}'
end

-- The queue's list follows its index; nothing rests on it, so what is of a wrong type is left alone.
local function add_items(queue, amount)
  for first = 1, amount, MOST_MEMBERS do
    local items = {}
    for index = first, math.min(first + MOST_MEMBERS - 1, amount) do
      items[index - first + 1] = READY_ITEM
    end
    redis.pcall('LPUSH', queue, unpack(items))
  end
end

-- Takes jobs out of line, those of them that are in it.
local function leave_line(queue, ids)
  local left = 0
  for first = 1, #ids, MOST_MEMBERS do
    left = left + redis.call('ZREM', ready_key(queue), unpack(ids, first, math.min(first + MOST_MEMBERS - 1, #ids)))
  end
  if left > 0 then
    redis.pcall('LREM', queue, -left, READY_ITEM)
  end
end

-- Jobs that get in line when the operation ends: {id, task}.
local ready = {}

local function make_ready(id, task)
  table.insert(ready, {id, task})
end

-- Of a job whose task is known, see spec_of.
local function ready_again(id)
  redis.call('HSET', job_key(id), 'state', 'accepted', 'changed_at', now)
  redis.call('HDEL', job_key(id), 'lease')
  uncount_end(id)
  make_ready(id, field(id, 'task'))
  add_event_of('accepted', id)
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

local function get_in_line()
  local lines = {}
  for position, job in ipairs(ready) do
    local spec = TASKS[job[2]]
    local line = lines[spec.queue] or {members = {}, hands = 0}
    lines[spec.queue] = line
    table.insert(line.members, now_us + position)
    table.insert(line.members, job[1])
    line.hands = line.hands + 1 / spec.ids_per_notification
  end
  for _, queue in ipairs(QUEUES) do
    local line = lines[queue]
    if line then
      call_with('ZADD', ready_key(queue), line.members)
      add_items(queue, #line.members / 2)
      if type(redis.pcall('SADD', prefix .. 'queues', queue)) ~= 'number' then
        redis.call('DEL', prefix .. 'queues') -- each version adds its own again
        redis.call('SADD', prefix .. 'queues', queue)
      end
      wake(queue, math.ceil(line.hands))
    end
  end
end
