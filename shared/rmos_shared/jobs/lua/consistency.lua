-- Whether each job is where its state says, and putting it there.

-- Every queue that jobs may lie on, those of other versions among them.
local function all_queues()
  local found, seen = {}, {}
  for _, queue in ipairs(QUEUES) do
    table.insert(found, queue)
    seen[queue] = true
  end
  if is_well('set', prefix .. 'queues') then
    for _, queue in ipairs(redis.call('SMEMBERS', prefix .. 'queues')) do
      if not seen[queue] then
        table.insert(found, queue)
      end
    end
  end
  return found
end

local function lies_in(index, id)
  local score = redis.pcall('ZSCORE', prefix .. index, id)
  return type(score) == 'string' or type(score) == 'number'
end

-- The indexes that a record's state allows its id to lie in; nil when it must lie nowhere.
local function homes_of(id, state)
  if state == 'accepted' then
    local spec, homes = spec_of(id), {}
    for _, queue in ipairs(spec and {spec.queue} or all_queues()) do
      table.insert(homes, 'ready:' .. queue)
    end
    table.insert(homes, 'taken')
    return homes
  elseif state == 'running' then
    return {'leases:' .. (string.match(field(id, 'lease'), '^(.*)|') or '')}
  elseif state == 'waiting' or state == 'dead' or state == 'discarded' then
    return {state}
  end
end

-- Fields that must be whole numbers where they stand.
local NUMBERS = {'crash_count', 'claim_count', 'retry_count', 'take_count', 'accepted_at', 'changed_at', 'due_at', 'waiting_since',
  'first_failed_at', 'last_failed_at'}

-- The first field of a record that cannot be read; nil when all can.
local function unreadable_field(id)
  for position, value in ipairs(fields(id, unpack(NUMBERS))) do
    if value and not string.match(value, '^-?%d+$') then
      return NUMBERS[position]
    end
  end
  for _, name in ipairs({'history', 'failure', 'result'}) do
    local value = redis.call('HGET', job_key(id), name)
    if value and not pcall(cjson.decode, value) then
      return name
    end
  end
end

local function inconsistency_of(id)
  local is = redis.call('TYPE', job_key(id)).ok
  if is ~= 'hash' and is ~= 'none' then
    return 'has a ' .. is .. ' in place of its record'
  end
  local state = redis.call('HGET', job_key(id), 'state')
  if not state then
    return 'has no record'
  end
  local unreadable = unreadable_field(id)
  if unreadable then
    return 'has an unreadable field: ' .. unreadable
  end
  local homes, home = homes_of(id, state), nil
  for _, index in ipairs(homes or {}) do
    home = home or (lies_in(index, id) and index)
  end
  if homes and not home then
    return 'is ' .. state .. ' and not in ' .. prefix .. homes[1]
  end
  local indexes = {'taken', 'waiting', 'dead', 'discarded'}
  for _, queue in ipairs(all_queues()) do
    table.insert(indexes, 'ready:' .. queue)
  end
  for _, index in ipairs(indexes) do
    if index ~= home and lies_in(index, id) then
      return 'is ' .. state .. ' and also in ' .. prefix .. index
    end
  end
  if home and state ~= 'discarded' and not spec_of(id) then
    return 'is ' .. state .. ', and of a task that only another version knows'
  end
  return ''
end

-- check: ids. Answers for each its state, or none, then a space and what is wrong with it, if anything is.
function operations.check()
  local inconsistencies = {}
  for index = 2, #ARGV do
    local state = field(ARGV[index], 'state')
    inconsistencies[index - 1] = (state ~= '' and state or 'none') .. ' ' .. inconsistency_of(ARGV[index])
  end
  return inconsistencies
end

-- repair: id, worker instances. Puts an inconsistent job where its state says; an unfinished
-- one is ready again, and one without a record is discarded, visibly. Answers its state, or ok.
function operations.repair()
  local id = arg()
  if inconsistency_of(id) == '' then
    return 'ok'
  end
  local key, state = job_key(id), field(id, 'state')
  state = state ~= '' and state or nil
  local unreadable = state and unreadable_field(id)
  local spec = spec_of(id)
  if state and state ~= 'dead' and state ~= 'discarded' and state ~= 'done' and not spec then
    return 'of another version'
  end
  need_to_lapse()
  need('zset', prefix .. 'waiting')
  need('zset', prefix .. 'discarded')
  local indexes = {'taken', 'waiting', 'dead', 'discarded'}
  for _, queue in ipairs(all_queues()) do
    table.insert(indexes, 'ready:' .. queue)
  end
  while cursor < #ARGV do
    table.insert(indexes, 'leases:' .. arg())
  end
  for _, index in ipairs(indexes) do
    need('zset', prefix .. index)
  end
  if unreadable then
    -- What it said nobody can tell; without it the job is as good as new.
    redis.call(unreadable == 'changed_at' and 'HSET' or 'HDEL', key, unreadable,
      unreadable == 'changed_at' and now or nil)
  end
  if not is_well('hash', key) then
    redis.call('DEL', key) -- what lies there is no record, and nobody can tell whose it was
  end
  if lies_in('dead', id) then
    unmirror_one()
  end
  for _, queue in ipairs(all_queues()) do
    leave_line(queue, {id})
  end
  for _, index in ipairs(indexes) do
    redis.call('ZREM', prefix .. index, id)
  end
  if not state then
    redis.call('HSET', key, 'task', 'unknown', 'run_id', '', 'request_id', '', 'sha256', '', 'accepted_at', now,
      'changed_at', now)
    state = 'discarded'
  end
  history(key, {what = 'repaired', by = 'doctor', why = 'was in the wrong index'})
  if state == 'dead' or state == 'discarded' then
    redis.call('HSET', key, 'state', state)
    redis.call('ZADD', prefix .. state, now, id)
    add_event_of(state, id)
    if state == 'dead' then
      mirror_one()
    end
  elseif state ~= 'done' then
    ready_again(id)
    state = 'accepted'
  end
  return state
end
