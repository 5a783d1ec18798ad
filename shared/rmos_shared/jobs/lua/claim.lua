-- Claiming jobs.

-- claim: worker, token, lease ms, number of ids, ids. The token makes a repeated claim the same claim.
-- Answers for each id: {'claimed', task, payload, run id, request id, retry count, crash count, age in
-- milliseconds of its first wait, or 0, traceparent or ''} or {state}. A job that crashed is claimed alone or not at
-- all. The crash count includes this claim, until it is settled.
function operations.claim()
  local worker, token, lease_ms, answers = arg(), arg(), number_arg(), {}
  local lease, leased, payloads, claimed, accepted_ids = worker .. '|' .. token, {}, {}, {}, {}
  local put_off = {}
  need('zset', prefix .. 'workers')
  need('zset', prefix .. 'taken')
  need('zset', prefix .. 'leases:' .. worker)
  local amount = number_arg()
  for index = 1, amount do
    local id = arg()
    local key = job_key(id)
    local record = fields(id, 'state', 'task', 'lease', 'run_id', 'request_id', 'retry_count', 'crash_count', 'claim_count',
      'due_at', 'waiting_since', 'traceparent') or {'damaged'}
    local spec = TASKS[record[2] or '']
    local state, crash_count = (spec or record[1] == 'damaged') and record[1] or 'unknown', number(record[7])
    -- A notification for several may be older than the crash of one of them; that one comes alone by now.
    local in_turn = crash_count == 0 or amount == 1
    if in_turn and (state == 'accepted' or (state == 'waiting' and number(record[9]) <= now)) then
      local queue = spec.queue
      if not accepted_ids[queue] then
        -- Before the first write: they are the jobs of one notification, and so of one queue.
        need('zset', ready_key(queue))
        need('zset', prefix .. 'waiting')
        accepted_ids[queue] = {}
      end
      table.insert(state == 'waiting' and put_off or accepted_ids[queue], id)
      crash_count, state = crash_count + 1, 'claimed'
      redis.call('HSET', key, 'state', 'running', 'changed_at', now, 'lease', lease, 'crash_count', crash_count,
        'claim_count', number(record[8]) + 1)
      table.insert(leased, now)
      table.insert(leased, id)
      add_event('running', id, record[2], record[4] or '', record[5] or '')
    elseif state == 'running' and record[3] == lease then
      state = 'claimed'
    end
    answers[index] = {state}
    if state == 'claimed' then
      table.insert(claimed, index)
      table.insert(payloads, prefix .. 'payload:' .. id)
      answers[index] = {state, record[2], '', record[4] or '', record[5] or '', number(record[6]), crash_count,
        record[10] and now - number(record[10]) or 0, record[11] or ''}
    end
  end
  for queue, ids in pairs(accepted_ids) do
    if #ids > 0 and redis.call('ZREM', prefix .. 'taken', unpack(ids)) < #ids then
      leave_line(queue, ids) -- in line once more while an older notification was on its way
    end
  end
  call_with('ZREM', prefix .. 'waiting', put_off)
  redis.call('ZADD', prefix .. 'workers', now + lease_ms, worker)
  call_with('ZADD', prefix .. 'leases:' .. worker, leased)
  if #payloads > 0 then
    for position, payload in ipairs(redis.call('MGET', unpack(payloads))) do
      answers[claimed[position]][3] = payload or ''
    end
  end
  return answers
end
