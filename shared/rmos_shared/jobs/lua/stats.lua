-- Figures.

-- stats. Answers accepted, done, dead, discarded, waiting, running, ready_jobs, raw,
-- then the length of each queue and of the mirror.
function operations.stats()
  for _, index in ipairs({'dead', 'discarded', 'waiting', 'taken', 'workers', 'raw'}) do
    need('zset', prefix .. index)
  end
  need('hash', prefix .. 'counts')
  local counts = redis.call('HMGET', prefix .. 'counts', 'accepted', 'done')
  local running, ready_jobs, lengths = 0, redis.call('ZCARD', prefix .. 'taken'), {}
  for _, worker in ipairs(redis.call('ZRANGE', prefix .. 'workers', 0, -1)) do
    need('zset', prefix .. 'leases:' .. worker)
    running = running + redis.call('ZCARD', prefix .. 'leases:' .. worker)
  end
  for _, queue in ipairs(all_queues()) do
    need('zset', ready_key(queue))
    ready_jobs = ready_jobs + redis.call('ZCARD', ready_key(queue))
  end
  for index, queue in ipairs(QUEUES) do
    need('list', queue)
    lengths[index] = redis.call('LLEN', queue)
  end
  need('list', mirror)
  return {number(counts[1]), number(counts[2]), redis.call('ZCARD', prefix .. 'dead'),
    redis.call('ZCARD', prefix .. 'discarded'), redis.call('ZCARD', prefix .. 'waiting'), running, ready_jobs,
    redis.call('ZCARD', prefix .. 'raw'), redis.call('LLEN', mirror), unpack(lengths)}
end

-- queues. Answers every queue that jobs may lie on, those of other versions among them.
function operations.queues()
  return all_queues()
end
