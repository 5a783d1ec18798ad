-- What an operator does with dead letters.

-- replay: id, by, why, token. The token makes a repeated replay the same replay. Answers replayed, or the
-- state that forbids it.
function operations.replay()
  local id, by, why, token = arg(), arg(), arg(), arg()
  need_record(id)
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state ~= 'dead' then
    return field(id, 'replay') == token and 'replayed' or state
  end
  local spec = spec_of(id)
  if not spec then
    return 'of another version'
  end
  need('zset', ready_key(spec.queue))
  need('zset', prefix .. 'dead')
  need('hash', prefix .. 'subjects')
  redis.call('HSET', job_key(id), 'replay', token)
  redis.call('ZREM', prefix .. 'dead', id)
  unmirror_one()
  redis.call('HDEL', job_key(id), 'waiting_since', 'crash_count', 'claim_count', 'retry_count')
  history(job_key(id), {what = 'replayed', by = by, why = why})
  redis.call('HSET', prefix .. 'subjects', subject_of(id), id)
  ready_again(id)
  return 'replayed'
end

-- discard: id, by, why. Answers discarded, or the state that forbids it.
function operations.discard()
  local id, by, why = arg(), arg(), arg()
  need_record(id)
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state ~= 'dead' then
    return state
  end
  need('zset', prefix .. 'dead')
  need('zset', prefix .. 'discarded')
  need('hash', prefix .. 'subjects')
  need_to_end()
  redis.call('ZREM', prefix .. 'dead', id)
  unmirror_one()
  forget_subject(id)
  -- For ever, as its record is kept.
  redis.call('SET', prefix .. 'ended:' .. subject_of(id), id)
  redis.call('HSET', job_key(id), 'state', 'discarded', 'changed_at', now)
  redis.call('ZADD', prefix .. 'discarded', now, id)
  add_event_of('discarded', id)
  add_end('discarded', id)
  history(job_key(id), {what = 'discarded', by = by, why = why})
  return 'discarded'
end

-- discard_raw: id, by, why. Answers discarded, or the state that forbids it.
function operations.discard_raw()
  local id, by, why = arg(), arg(), arg()
  local key = prefix .. 'raw:' .. id
  need('hash', key)
  local state = redis.call('HGET', key, 'state') or 'unknown'
  if state ~= 'dead' then
    return state
  end
  need('zset', prefix .. 'raw')
  need('zset', prefix .. 'raw_discarded')
  redis.call('ZREM', prefix .. 'raw', id)
  unmirror_one()
  redis.call('HSET', key, 'state', 'discarded')
  redis.call('ZADD', prefix .. 'raw_discarded', now, id)
  history(key, {what = 'discarded', by = by, why = why})
  return 'discarded'
end
