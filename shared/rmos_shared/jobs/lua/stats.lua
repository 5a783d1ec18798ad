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

-- What status shows beside them. Each step looks at a bounded number of jobs, so that none holds up the workers.

-- lines. Answers the time in milliseconds, then for each queue: its name, its ready jobs, and since when the first of
-- them is ready, in milliseconds, or ''.
function operations.lines()
  local answer = {now}
  for _, queue in ipairs(all_queues()) do
    need('zset', ready_key(queue))
    local first = redis.call('ZRANGE', ready_key(queue), 0, 0, 'WITHSCORES')
    table.insert(answer, queue)
    table.insert(answer, redis.call('ZCARD', ready_key(queue)))
    table.insert(answer, first[2] and math.floor(tonumber(first[2]) / 1000) or '')
  end
  return answer
end

-- survey: index, first rank, last rank, whether the reason of the last failure tells them apart (1 or 0). Answers for
-- each task, or task and reason, of these jobs: task, reason, how many, the lowest and the highest score.
function operations.survey()
  local index, first, last, by_reason = arg(), number_arg(), number_arg(), arg() == '1'
  need('zset', prefix .. index)
  local groups, answer = {}, {}
  local members = redis.call('ZRANGE', prefix .. index, first, last, 'WITHSCORES')
  for position = 1, #members, 2 do
    local record = (by_reason and fields(members[position], 'task', 'failure') or fields(members[position], 'task')) or {}
    -- As any writer of ours spells it; in the text of a message its quotes would be escaped.
    local reason = record[2] and string.match(record[2], '"reason":"([^"]*)"') or ''
    local task, score = record[1] or '', members[position + 1]
    local group = groups[task .. '\n' .. reason]
    if not group then
      group = {task, reason, 0, score, score}
      groups[task .. '\n' .. reason] = group
      table.insert(answer, group)
    end
    group[3] = group[3] + 1
    if tonumber(score) < tonumber(group[4]) then
      group[4] = score
    end
    if tonumber(score) > tonumber(group[5]) then
      group[5] = score
    end
  end
  return answer
end

-- workers: first rank, last rank, most jobs of each. Answers for each: name, from when it counts as silent, its last
-- heartbeat or '', its jobs, then id, task and time of claim of those that were claimed first.
function operations.workers()
  local first, last, most, answer = number_arg(), number_arg(), number_arg(), {}
  need('zset', prefix .. 'workers')
  local workers = redis.call('ZRANGE', prefix .. 'workers', first, last, 'WITHSCORES')
  for position = 1, #workers, 2 do
    local leases = prefix .. 'leases:' .. workers[position]
    need('zset', leases)
    local beat = redis.pcall('ZSCORE', prefix .. 'beats', workers[position])
    local worker = {workers[position], workers[position + 1], type(beat) == 'string' and beat or '',
      redis.call('ZCARD', leases)}
    local jobs = redis.call('ZRANGE', leases, 0, most - 1, 'WITHSCORES')
    for place = 1, #jobs, 2 do
      table.insert(worker, jobs[place])
      table.insert(worker, field(jobs[place], 'task'))
      table.insert(worker, jobs[place + 1])
    end
    table.insert(answer, worker)
  end
  return answer
end

-- acceptances: ids. Answers for each when it was first accepted, or ''.
function operations.acceptances()
  local answer = {}
  while cursor < #ARGV do
    table.insert(answer, field(arg(), 'accepted_at'))
  end
  return answer
end
