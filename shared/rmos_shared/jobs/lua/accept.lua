-- Accepting jobs.

local ACCEPT_ARGUMENTS = 8
local accepted = 0
-- Fields and values that new jobs bring to subjects.
local subjects = {}
-- By id, what the records of jobs to accept tell already; need_to_accept asks.
local known_sha256 = {}

local function write_job(id, task, payload, sha256, run_id, request_id)
  redis.call('HSET', job_key(id), 'task', task, 'sha256', sha256, 'run_id', run_id, 'request_id', request_id,
    'accepted_at', now, 'changed_at', now, 'state', 'accepted')
  redis.call('SET', prefix .. 'payload:' .. id, payload)
  make_ready(id, task)
  add_event('accepted', id, task, run_id, request_id)
  accepted = accepted + 1
  table.insert(subjects, TASKS[task].topic .. ':' .. run_id)
  table.insert(subjects, id)
end

-- Eight arguments: id, task, payload, sha256, run id, request id, traceparent, batch (the last three may be empty).
-- Answers new, repeat or conflict.
local function accept_one()
  local id, task, payload, sha256, run_id, request_id = arg(), arg(), arg(), arg(), arg(), arg()
  local traceparent, batch = arg(), arg()
  local known = known_sha256[id]
  if known then
    return known == sha256 and 'repeat' or 'conflict'
  end
  write_job(id, task, payload, sha256, run_id, request_id)
  if traceparent ~= '' then
    redis.call('HSET', job_key(id), 'traceparent', traceparent)
  end
  if batch ~= '' then
    redis.call('HSET', job_key(id), 'batch', batch)
  end
  known_sha256[id] = sha256
  return 'new'
end

-- Makes sure of all that accept_one will write for the next jobs among the arguments, without taking them. Before
-- each job's arguments stand so many others (none if left out).
local function need_to_accept(amount, others)
  local queues = {}
  for index = 0, amount - 1 do
    local place = cursor + index * (ACCEPT_ARGUMENTS + (others or 0)) + (others or 0)
    local id, task = ARGV[place + 1], ARGV[place + 2]
    local sha256 = redis.pcall('HGET', job_key(id), 'sha256')
    if type(sha256) == 'table' then
      need_record(id)
    end
    known_sha256[id] = sha256
    queues[TASKS[task].queue] = true
  end
  for queue in pairs(queues) do
    need('zset', ready_key(queue))
  end
  need('hash', prefix .. 'subjects')
  need('hash', prefix .. 'counts')
end

local function write_subjects()
  call_with('HSET', prefix .. 'subjects', subjects)
  subjects = {}
end

-- accept: number of jobs, then accept_one's arguments for each. Answers one outcome for each.
function operations.accept()
  local outcomes, amount = {}, number_arg()
  need_to_accept(amount)
  for index = 1, amount do
    outcomes[index] = accept_one()
  end
  write_subjects()
  return outcomes
end

-- Three arguments of ours stand before those of accept_one.
local ONCE_ARGUMENTS = 3

local function once_key(digest)
  return prefix .. 'once:' .. digest
end

-- Answers how it went and the receipt that stands. A key that is known takes no job in; what it is known for decides.
local function accept_one_once(ttl)
  local digest, body, receipt = arg(), arg(), arg()
  local key = once_key(digest)
  local known = redis.call('HMGET', key, 'body', 'receipt')
  if known[1] then
    cursor = cursor + ACCEPT_ARGUMENTS
    return known[1] == body and 'repeat' or 'mismatch', known[2] or ''
  end
  local outcome = accept_one()
  if outcome ~= 'conflict' then
    redis.call('HSET', key, 'body', body, 'receipt', receipt)
    redis.call('EXPIRE', key, ttl)
  end
  return outcome, receipt
end

-- accept_once: seconds for which keys are kept, number of jobs, then for each: digest of the caller and its key, hash
-- of what was asked, receipt (JSON), accept_one's arguments. Answers an outcome and a receipt for each.
function operations.accept_once()
  local answers, ttl, amount = {}, number_arg(), number_arg()
  for index = 0, amount - 1 do
    need('hash', once_key(ARGV[cursor + 1 + index * (ACCEPT_ARGUMENTS + ONCE_ARGUMENTS)]))
  end
  need_to_accept(amount, ONCE_ARGUMENTS)
  for _ = 1, amount do
    local outcome, receipt = accept_one_once(ttl)
    table.insert(answers, outcome)
    table.insert(answers, receipt)
  end
  write_subjects()
  return answers
end
