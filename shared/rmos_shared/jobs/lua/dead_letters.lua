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
  need_queue(spec.queue)
  need('zset', prefix .. 'dead')
  need('hash', prefix .. 'subjects')
  redis.call('HSET', job_key(id), 'replay', token)
  redis.call('ZREM', prefix .. 'dead', id)
  unmirror_one()
  redis.call('HDEL', job_key(id), 'waiting_since', 'crash_count', 'claim_count', 'retry_count')
  history(job_key(id), {what = 'replayed', by = by, why = why})
  redis.call('HSET', prefix .. 'subjects', subject_of(id), id)
  notify_again(id)
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
  redis.call('ZREM', prefix .. 'dead', id)
  unmirror_one()
  forget_subject(id)
  redis.call('HSET', job_key(id), 'state', 'discarded', 'changed_at', now)
  redis.call('ZADD', prefix .. 'discarded', now, id)
  history(job_key(id), {what = 'discarded', by = by, why = why})
  return 'discarded'
end

-- settle_raw: id, replayed or discarded, by, why, token. A replayed item goes back to its queue, verbatim, in
-- this very step; for a minute its token is known, so that a repeat of this call is. Answers what was asked
-- for, or the state that forbids it.
function operations.settle_raw()
  local id, what, by, why, token = arg(), arg(), arg(), arg(), arg()
  local key, replayed = prefix .. 'raw:' .. id, prefix .. 'raw_replay:' .. id
  need('hash', key)
  need('string', replayed)
  local state = redis.call('HGET', key, 'state') or 'unknown'
  if state ~= 'dead' then
    return redis.call('GET', replayed) == token and what or state
  end
  need('zset', prefix .. 'raw')
  need('zset', prefix .. 'raw_discarded')
  need('list', redis.call('HGET', key, 'queue') or '')
  redis.call('ZREM', prefix .. 'raw', id)
  unmirror_one()
  if what == 'replayed' then
    local queue = redis.call('HGET', key, 'queue')
    redis.call('LPUSH', queue, redis.call('HGET', key, 'item'))
    redis.call('DEL', key)
    redis.call('SET', replayed, token, 'PX', 60000)
    wake(queue, 1)
  else
    redis.call('HSET', key, 'state', 'discarded')
    redis.call('ZADD', prefix .. 'raw_discarded', now, id)
    history(key, {what = what, by = by, why = why})
  end
  return what
end
