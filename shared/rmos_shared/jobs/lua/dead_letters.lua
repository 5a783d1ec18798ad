-- What an operator does with dead letters.

-- Makes sure, before the first write, of the lines that these jobs would get into or leave.
local function need_lines_of(ids)
  local queues = {}
  for _, id in ipairs(ids) do
    local spec = spec_of(id)
    if spec then
      queues[spec.queue] = true
    end
  end
  for queue in pairs(queues) do
    need('zset', ready_key(queue))
  end
end

-- The arguments of an operation on jobs: act, by, why, ids. An act is also the token by which a repeat is known.
local function step_args()
  local act, by, why, ids = arg(), arg(), arg(), {}
  while cursor < #ARGV do
    table.insert(ids, arg())
  end
  need_act(act)
  return act, by, why, ids
end

local function replay_one(act, by, why, id)
  local record = fields(id, 'state', 'act')
  if not record then
    return 'damaged'
  elseif not record[1] then
    return redis.call('EXISTS', prefix .. 'raw:' .. id) == 1 and 'raw' or 'unknown'
  elseif record[1] ~= 'dead' then
    return record[2] == act and 'replayed' or record[1]
  elseif not spec_of(id) then
    return 'of another version'
  end
  redis.call('HSET', job_key(id), 'act', act)
  redis.call('ZREM', prefix .. 'dead', id)
  unmirror_one()
  redis.call('HDEL', job_key(id), 'waiting_since', 'crash_count', 'claim_count', 'retry_count')
  history(job_key(id), {what = 'replayed', by = by, why = why, act = act})
  redis.call('HSET', prefix .. 'subjects', subject_of(id), id)
  ready_again(id)
  return 'replayed', true
end

-- replay: step_args. Answers for each replayed, or the state that forbids it.
function operations.replay()
  local act, by, why, ids = step_args()
  need_lines_of(ids)
  need('zset', prefix .. 'dead')
  need('hash', prefix .. 'subjects')
  return each_of(ids, act, function(id) return replay_one(act, by, why, id) end)
end

-- A job that nobody will do; its record stays, for ever.
local function give_up(id, entry)
  forget_subject(id)
  -- For ever as well.
  redis.call('SET', prefix .. 'ended:' .. subject_of(id), id)
  redis.call('HSET', job_key(id), 'state', 'discarded', 'changed_at', now, 'act', entry.act)
  redis.call('ZADD', prefix .. 'discarded', now, id)
  add_event_of('discarded', id)
  add_end('discarded', id)
  history(job_key(id), entry)
end

local function discard_raw(act, by, why, id)
  local key = prefix .. 'raw:' .. id
  local state = redis.pcall('HGET', key, 'state')
  if type(state) ~= 'string' then
    return state and 'damaged' or 'unknown'
  elseif state ~= 'dead' then
    return state
  end
  redis.call('ZREM', prefix .. 'raw', id)
  unmirror_one()
  redis.call('HSET', key, 'state', 'discarded')
  redis.call('ZADD', prefix .. 'raw_discarded', now, id)
  history(key, {what = 'discarded', by = by, why = why, act = act})
  return 'discarded', true
end

local function discard_one(act, by, why, id)
  local record = fields(id, 'state')
  if not record then
    return 'damaged'
  elseif not record[1] then
    return discard_raw(act, by, why, id)
  elseif record[1] ~= 'dead' then
    return record[1]
  end
  redis.call('ZREM', prefix .. 'dead', id)
  unmirror_one()
  give_up(id, {what = 'discarded', by = by, why = why, act = act})
  return 'discarded', true
end

-- discard: step_args. Jobs and raw letters. Answers for each discarded, or the state that forbids it.
function operations.discard()
  local act, by, why, ids = step_args()
  for _, index in ipairs({'dead', 'discarded', 'raw', 'raw_discarded'}) do
    need('zset', prefix .. index)
  end
  need('hash', prefix .. 'subjects')
  need_to_end()
  return each_of(ids, act, function(id) return discard_one(act, by, why, id) end)
end
