-- The settlements: done, put off, or dead.

-- finish: worker, token, seconds to keep the record, number of jobs, then for each: id, result (JSON), what it published
-- (JSON lists), how much, number of following jobs, accept_one's arguments for each. The following jobs are accepted in the same
-- step, so none is lost or accepted twice; those of a page that its batch does not want any more are left out. Answers
-- for each: done, or the state that forbids it.
function operations.finish()
  local worker, token, ttl, answers = arg(), arg(), number_arg(), {}
  local ended, payloads, about, followers = {}, {}, {}, {}
  local amount, begin = number_arg(), cursor
  need('zset', prefix .. 'leases:' .. worker)
  need('hash', prefix .. 'counts')
  need('hash', prefix .. 'subjects')
  need_to_end()
  for _ = 1, amount do
    cursor = cursor + 4
    local following = number_arg()
    if following > 0 then
      need_to_accept(following)
    end
    cursor = cursor + following * ACCEPT_ARGUMENTS
  end
  cursor = begin
  for index = 1, amount do
    local id, result, text, amount_told, following = arg(), arg(), arg(), number_arg(), number_arg()
    local key = job_key(id)
    local record = fields(id, 'state', 'lease', 'task', 'run_id', 'failure', 'due_at', 'request_id', 'batch')
      or {'damaged'}
    local state, mine = record[1] or 'unknown', record[2] == worker .. '|' .. token
    if state == 'running' and mine and TASKS[record[3]] then
      state = 'done'
      if record[5] or record[6] then
        history(key, {what = 'done'})
        redis.call('HDEL', key, 'failure', 'due_at')
      end
      redis.call('HSET', key, 'state', 'done', 'changed_at', now, 'result', result)
      redis.call('EXPIRE', key, ttl)
      local subject = TASKS[record[3]].topic .. ':' .. (record[4] or '')
      redis.call('SET', prefix .. 'ended:' .. subject, id, 'EX', ttl)
      table.insert(ended, id)
      table.insert(payloads, prefix .. 'payload:' .. id)
      table.insert(about, subject)
      local page = record[8] and record[3] == PLAN
      if not page or take_page(record[8], result) then
        table.insert(followers, {cursor, following, page and record[8]})
      end
      add_publications(text, amount_told)
      add_event('done', id, record[3], record[4] or '', record[7] or '')
      add_end('done', id, record[3], record[8], result)
    elseif state == 'done' and not mine then
      state = 'done_elsewhere'
    end
    answers[index] = state
    cursor = cursor + following * ACCEPT_ARGUMENTS
  end
  if #ended == 0 then
    return answers
  end
  call_with('ZREM', prefix .. 'leases:' .. worker, ended)
  redis.call('DEL', unpack(payloads))
  redis.call('HINCRBY', prefix .. 'counts', 'done', #ended)
  -- Before anything new is written about the same runs.
  local latest, over = redis.call('HMGET', prefix .. 'subjects', unpack(about)), {}
  for position, id in ipairs(ended) do
    if latest[position] == id then
      table.insert(over, about[position])
    end
  end
  call_with('HDEL', prefix .. 'subjects', over)
  for _, place in ipairs(followers) do
    cursor = place[1]
    local new = 0
    for _ = 1, place[2] do
      new = new + (accept_one() == 'new' and 1 or 0)
    end
    if place[3] then
      add_to_batch(place[3], 'jobs', new)
    end
  end
  write_subjects()
  return answers
end

-- reschedule: worker, token, id, delay ms, whether a try is spent (1 or 0), failure (JSON), whether for the advisory
-- store's sake (1 or 0). Answers waiting, or the state.
function operations.reschedule()
  local worker, token, id, delay, spent, failure = arg(), arg(), arg(), number_arg(), number_arg(), arg()
  local held = arg() == '1'
  need_record(id)
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state == 'running' and holds(id, worker, token) then
    need('zset', prefix .. 'leases:' .. worker)
    need('zset', prefix .. 'waiting')
    need('zset', prefix .. 'held')
    redis.call('ZREM', prefix .. 'leases:' .. worker, id)
    failed(id, 'put_off', failure)
    redis.call('HSET', job_key(id), 'retry_count', number(field(id, 'retry_count')) + spent)
    redis.call('HSETNX', job_key(id), 'waiting_since', now)
    -- The lease stays written, so that a repeat of this call is known as one.
    redis.call('HSET', job_key(id), 'state', 'waiting', 'changed_at', now, 'due_at', now + delay, 'crash_count', 0)
    redis.call('ZADD', prefix .. 'waiting', now + delay, id)
    add_event_of('waiting', id)
    if held then
      redis.call('ZADD', prefix .. 'held', now, id)
      -- No job waits as long as that at a time; without an outage nobody else would drop those that moved on.
      redis.call('ZREMRANGEBYSCORE', prefix .. 'held', '-inf', now - LONGEST_MS)
    else
      redis.call('ZREM', prefix .. 'held', id)
    end
    return 'waiting'
  end
  return state
end

-- bring_forward: most jobs, a time in milliseconds or +inf. Makes due now what was put off up to then for the advisory
-- store's sake, the longest first, and waits since for nothing else; not what is paused. Answers how many.
function operations.bring_forward()
  local most, before, moved, held, paused = number_arg(), arg(), 0, prefix .. 'held', read_pauses()
  need('zset', held)
  need('zset', prefix .. 'waiting')
  local held_jobs = redis.call('ZRANGEBYSCORE', held, '-inf', before, 'WITHSCORES', 'LIMIT', 0, most + MOST_MEMBERS)
  for index = 1, #held_jobs, 2 do
    if moved == most then
      break
    end
    local id = held_jobs[index]
    local record = fields(id, 'state', 'changed_at', 'due_at', 'task') or {}
    -- One that is paused would not run: it must not be the one that probes.
    if not paused or not is_paused(paused, record[4] or '') then
      redis.call('ZREM', held, id)
      if record[1] == 'waiting' and number(record[2]) == tonumber(held_jobs[index + 1]) and number(record[3]) > now then
        redis.call('HSET', job_key(id), 'due_at', now)
        redis.call('ZADD', prefix .. 'waiting', now, id)
        moved = moved + 1
      end
    end
  end
  return moved
end

-- bury: worker, token, id, failure (JSON), code version, what it published (JSON lists), how much. Answers dead, or the
-- state that forbids it.
function operations.bury()
  local worker, token, id, failure, code_version = arg(), arg(), arg(), arg(), arg()
  local text, amount = arg(), number_arg()
  need_record(id)
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state == 'running' and holds(id, worker, token) then
    need('zset', prefix .. 'leases:' .. worker)
    need('zset', prefix .. 'dead')
    need_to_end()
    redis.call('ZREM', prefix .. 'leases:' .. worker, id)
    die(id, failure, code_version)
    add_publications(text, amount)
    return 'dead'
  end
  return state
end
