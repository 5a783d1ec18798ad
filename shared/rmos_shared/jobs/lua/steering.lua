-- What an operator does with jobs that nobody works on.

local function cancel_one(act, by, why, id)
  local record = fields(id, 'state', 'task', 'act')
  if not record then
    return 'damaged'
  end
  local state, spec = record[1] or 'unknown', TASKS[record[2] or '']
  if state ~= 'accepted' and state ~= 'waiting' then
    return state == 'discarded' and record[3] == act and 'cancelled' or state
  elseif not spec then
    return 'of another version'
  end
  leave_line(spec.queue, {id})
  -- A worker that has its notification already is told so when it claims.
  for _, index in ipairs({'taken', 'waiting', 'held'}) do
    redis.call('ZREM', prefix .. index, id)
  end
  give_up(id, {what = 'cancelled', by = by, why = why, act = act})
  return 'cancelled', true
end

-- cancel: step_args. A job that runs is left alone. Answers for each cancelled, or the state that forbids it.
function operations.cancel()
  local act, by, why, ids = step_args()
  need_lines_of(ids)
  for _, index in ipairs({'taken', 'waiting', 'held', 'discarded'}) do
    need('zset', prefix .. index)
  end
  need('hash', prefix .. 'subjects')
  need_to_end()
  return each_of(ids, act, function(id) return cancel_one(act, by, why, id) end)
end

local function run_one_now(act, by, why, id)
  local record = fields(id, 'state', 'task', 'act')
  if not record then
    return 'damaged'
  elseif record[3] == act then
    return 'due'
  elseif record[1] ~= 'waiting' then
    return record[1] or 'unknown'
  elseif not TASKS[record[2] or ''] then
    return 'of another version'
  end
  -- The reconciler puts it in line, as everything that is due; the breaker is asked when it runs, as always.
  redis.call('HSET', job_key(id), 'due_at', now, 'act', act)
  redis.call('ZADD', prefix .. 'waiting', now, id)
  redis.call('ZREM', prefix .. 'held', id)
  history(job_key(id), {what = 'run_now', by = by, why = why, act = act})
  return 'due', true
end

-- run_now: step_args. Answers for each due, or the state that forbids it.
function operations.run_now()
  local act, by, why, ids = step_args()
  need('zset', prefix .. 'waiting')
  need('zset', prefix .. 'held')
  return each_of(ids, act, function(id) return run_one_now(act, by, why, id) end)
end
