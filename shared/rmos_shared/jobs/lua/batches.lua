-- Batches: how they begin, and what an operator does with them.

-- open_batch: id, spec (JSON), entry of the schedule that opens it (may be empty), milliseconds when that was due. Answers
-- new, repeat, or conflict: the id is taken by a batch with another spec, which stays.
function operations.open_batch()
  local id, spec, entry, due = arg(), arg(), arg(), number_arg()
  need('hash', batch_key(id))
  need('zset', prefix .. 'batches')
  need('set', prefix .. 'batches_open')
  need('hash', prefix .. 'scheduled')
  local known = redis.call('HGET', batch_key(id), 'spec')
  if not known then
    redis.call('HSET', batch_key(id), 'spec', spec, 'state', 'running', 'created_at', now, 'changed_at', now)
    redis.call('ZADD', prefix .. 'batches', now, id)
    redis.call('SADD', prefix .. 'batches_open', id)
  end
  if entry ~= '' and number(redis.call('HGET', prefix .. 'scheduled', entry)) < due then
    redis.call('HSET', prefix .. 'scheduled', entry, string.format('%d', due))
  end
  return not known and 'new' or known == spec and 'repeat' or 'conflict'
end

local MOST_LOOKED_AT = 100

-- By what is asked for: the states in which it is done, and what they become.
local STEPS = {
  pause = {running = 'paused', paused = 'paused'},
  resume = {paused = 'running', running = 'running'},
  cancel = {running = 'cancelling', paused = 'cancelling', cancelling = 'cancelling'},
}

-- steer_batch: id, what (pause, resume or cancel), by, why. Answers the state afterwards and 1, or 0 when the state
-- forbids it; unknown when there is no such batch.
function operations.steer_batch()
  local id, what, by, why = arg(), arg(), arg(), arg()
  local key = batch_key(id)
  need('hash', key)
  local state = redis.call('HGET', key, 'state') or 'unknown'
  local after = STEPS[what][state]
  if after and after ~= state then
    redis.call('HSET', key, 'state', after, 'changed_at', now)
    history(key, {what = what, by = by, why = why})
  end
  return {after or state, after and 1 or 0}
end

-- Whose jobs wait for others, and nobody waits for them: batches do not give way to webhooks, nor to the audit log.
local GIVE_WAY = {[TASKS[REEXPLAIN].queue] = true, [DELIVERIES] = true, [TASKS[SEAL].queue] = true}

-- live_under_way: answers 1 while a worker is at a job that batches give way to, 0 otherwise. Of a long index only the
-- newest are looked at.
function operations.live_under_way()
  local indexes = {prefix .. 'taken'}
  if is_well('zset', prefix .. 'workers') then
    for _, worker in ipairs(redis.call('ZREVRANGE', prefix .. 'workers', 0, MOST_LOOKED_AT)) do
      table.insert(indexes, prefix .. 'leases:' .. worker)
    end
  end
  for _, index in ipairs(indexes) do
    for _, id in ipairs(is_well('zset', index) and redis.call('ZREVRANGE', index, 0, MOST_LOOKED_AT) or {}) do
      local spec = spec_of(id)
      if spec and not GIVE_WAY[spec.queue] then
        return 1
      end
    end
  end
  return 0
end
