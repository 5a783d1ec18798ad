-- Claiming jobs.

local function watermark(queue)
  local time = redis.pcall('GET', prefix .. 'acknowledged:' .. queue)
  return type(time) == 'string' and number(time) or 0
end

-- Raises the watermark to the youngest notification of these jobs, each notified once. Of a job notified again
-- nobody knows which notification is acknowledged. Were it an old one at the head of a backlog, the time of the new
-- one would make the whole backlog look overtaken.
local function note_acknowledged(queue, ids)
  if #ids == 0 then
    return
  end
  local youngest = watermark(queue)
  local before = youngest
  for _, notification in ipairs(redis.call('ZMSCORE', prefix .. 'notified:' .. queue, unpack(ids))) do
    youngest = math.max(youngest, notification and tonumber(notification) or 0)
  end
  if youngest > before then
    redis.call('SET', prefix .. 'acknowledged:' .. queue, youngest)
  end
end

-- claim: worker, token, lease ms, number of ids, ids. The token makes a repeated claim the same claim.
-- Answers for each id: {'claimed', task, payload, run id, request id, retry count, crash count, age in
-- milliseconds of its first wait, or 0} or {state}. A job that crashed is claimed alone or not at all. The crash
-- count includes this claim, until it is settled.
function operations.claim()
  local worker, token, lease_ms, answers = arg(), arg(), number_arg(), {}
  local lease, leased, payloads, claimed, notified, once = worker .. '|' .. token, {}, {}, {}, {}, {}
  local put_off = {}
  need('zset', prefix .. 'workers')
  need('zset', prefix .. 'leases:' .. worker)
  local amount = number_arg()
  for index = 1, amount do
    local id = arg()
    local key = job_key(id)
    local record = fields(id, 'state', 'task', 'lease', 'run_id', 'request_id', 'retry_count', 'crash_count', 'claim_count',
      'due_at', 'waiting_since', 'again') or {'damaged'}
    local spec = TASKS[record[2] or '']
    local state, crash_count = (spec or record[1] == 'damaged') and record[1] or 'unknown', number(record[7])
    -- A notification for several may be older than the crash of one of them; that one is notified alone by now.
    local in_turn = crash_count == 0 or amount == 1
    if in_turn and (state == 'accepted' or (state == 'waiting' and number(record[9]) <= now)) then
      local queue = spec.queue
      if not notified[queue] then
        -- Before the first write: they are the jobs of one notification, and so of one queue.
        need('zset', prefix .. 'notified:' .. queue)
        need('zset', prefix .. 'waiting')
        notified[queue], once[queue] = {}, {}
      end
      if state == 'waiting' then
        table.insert(put_off, id)
      end
      if record[11] ~= '1' then
        table.insert(once[queue], id)
      end
      crash_count, state = crash_count + 1, 'claimed'
      redis.call('HSET', key, 'state', 'running', 'changed_at', now, 'lease', lease, 'crash_count', crash_count,
        'claim_count', number(record[8]) + 1)
      table.insert(notified[queue], id)
      table.insert(leased, now)
      table.insert(leased, id)
    elseif state == 'running' and record[3] == lease then
      state = 'claimed'
    end
    answers[index] = {state}
    if state == 'claimed' then
      table.insert(claimed, index)
      table.insert(payloads, prefix .. 'payload:' .. id)
      answers[index] = {state, record[2], '', record[4] or '', record[5] or '', number(record[6]), crash_count,
        record[10] and now - number(record[10]) or 0}
    end
  end
  for queue, ids in pairs(notified) do
    note_acknowledged(queue, once[queue])
    call_with('ZREM', prefix .. 'notified:' .. queue, ids)
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
