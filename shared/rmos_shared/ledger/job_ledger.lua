-- The job ledger: every transition of a job is one run of this script, so it happens whole or not at all.
-- All times are the server's, in milliseconds since 1970. Every operation may be repeated safely.
--
-- KEYS[1]  prefix, "rmos:" outside tests. Keys below it:
--   job:<id>         hash  the record: task queue state run_id request_id sha256 payload accepted_at
--                          changed_at starts claims tries lease due_at waiting_since result failure first_failed_at
--                          last_failed_at code_version history subject again (1 if rung for more than once)
--   rung:<queue>     zset  accepted jobs by the time their bell was last rung
--   answered:<queue> str   ring time of the youngest first bell that was answered
--   leases:<worker>  zset  running jobs by the time they were claimed
--   waiting          zset  jobs put off, by due time
--   dead, discarded  zset  by the time they became so
--   counts           hash  accepted, done: they only grow
--   subjects         hash  "<topic>:<run id>" -> the latest job on it that is not done
--   workers          zset  worker instances by the time from which they count as silent
--   raw:<id>         hash  a message that is no job of ours: item queue reason detail kept_at sha256 size
--   raw, raw_discarded  zset  by time
-- KEYS[2]  the list that mirrors the number of dead letters for Flower's Broker page (its items say nothing)
-- ARGV[1]  the operation; the rest are its arguments, described at each.
--
-- A job is in exactly one of rung:*, waiting, leases:*, dead, discarded, or done (counted, its record expires).

local prefix, mirror = KEYS[1], KEYS[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local cursor = 1
-- Above the longest delay and the longest lease that the settings allow: a day, and some.
local LONGEST_MS = 90000000

local function arg()
  cursor = cursor + 1
  return ARGV[cursor]
end

local function number_arg()
  return tonumber(arg())
end

local function job_key(id)
  return prefix .. 'job:' .. id
end

local function field(id, name)
  return redis.call('HGET', job_key(id), name) or ''
end

local function ring(id, queue, again)
  redis.call('HSET', job_key(id), 'state', 'accepted', 'changed_at', now, 'lease', '', 'again', again)
  redis.call('ZADD', prefix .. 'rung:' .. queue, now, id)
end

local function history(key, entry)
  local told = redis.call('HGET', key, 'history')
  local list = told and cjson.decode(told) or {}
  entry.at = now
  table.insert(list, entry)
  redis.call('HSET', key, 'history', cjson.encode(list))
end

local function forget_subject(id)
  local subject = field(id, 'subject')
  if subject ~= '' and redis.call('HGET', prefix .. 'subjects', subject) == id then
    redis.call('HDEL', prefix .. 'subjects', subject)
  end
end

local function failed(id, failure)
  redis.call('HSET', job_key(id), 'failure', failure, 'last_failed_at', now)
  redis.call('HSETNX', job_key(id), 'first_failed_at', now)
end

local function die(id, failure, code_version)
  failed(id, failure)
  redis.call('HSET', job_key(id), 'state', 'dead', 'changed_at', now, 'code_version', code_version)
  redis.call('ZADD', prefix .. 'dead', now, id)
  redis.call('LPUSH', mirror, 'see rmos dlq list')
end

-- Eight arguments: id, task, queue, payload, sha256, run id, request id, subject. Answers new, repeat or conflict.
local function accept_one()
  local id, task, queue, payload = arg(), arg(), arg(), arg()
  local sha256, run_id, request_id, subject = arg(), arg(), arg(), arg()
  local known = redis.call('HGET', job_key(id), 'sha256')
  if known then
    return known == sha256 and 'repeat' or 'conflict'
  end
  redis.call('HSET', job_key(id), 'task', task, 'queue', queue, 'payload', payload, 'sha256', sha256,
    'run_id', run_id, 'request_id', request_id, 'subject', subject, 'accepted_at', now,
    'starts', 0, 'claims', 0, 'tries', 0)
  ring(id, queue, 0)
  redis.call('HINCRBY', prefix .. 'counts', 'accepted', 1)
  redis.call('HSET', prefix .. 'subjects', subject, id)
  return 'new'
end

-- A job that lost its worker: rung for again, or dead when that has happened too often.
local function lapse(id, worker, exhausted, code_version, rung)
  redis.call('ZREM', prefix .. 'leases:' .. worker, id)
  if exhausted then
    local told = redis.call('HMGET', job_key(id), 'starts', 'claims')
    die(id, cjson.encode({reason = 'crash_loop', error_type = 'WorkerLost', traceback = '',
      message = told[1] .. ' starts (' .. told[2] .. ' claims) without a finish; last worker: ' .. worker}),
      code_version)
  else
    ring(id, field(id, 'queue'), 1)
    table.insert(rung, id)
  end
end

local function holds(id, worker, token)
  return field(id, 'lease') == worker .. '|' .. token
end

-- The first members of an index of times that have come, or that lie further ahead than any we write.
local function past(index, most)
  local found = redis.call('ZRANGEBYSCORE', prefix .. index, 0, now, 'LIMIT', 0, most)
  local absurd = redis.call('ZRANGEBYSCORE', prefix .. index, now + LONGEST_MS, '+inf', 'LIMIT', 0, most)
  for _, member in ipairs(absurd) do
    table.insert(found, member)
  end
  return found
end

local operations = {}

-- accept: number of jobs, then accept_one's arguments for each. Answers one outcome for each.
function operations.accept()
  local outcomes = {}
  for index = 1, number_arg() do
    outcomes[index] = accept_one()
  end
  return outcomes
end

-- claim: worker, token, lease ms, number of ids, ids. The token makes a repeated claim the same claim.
-- Answers for each id: {'claimed', task, payload, run id, request id, tries, starts, age in
-- milliseconds of its first wait, or 0} or {state}.
function operations.claim()
  local worker, token, lease_ms, answers = arg(), arg(), number_arg(), {}
  redis.call('ZADD', prefix .. 'workers', now + lease_ms, worker)
  for index = 1, number_arg() do
    local id = arg()
    local key = job_key(id)
    local record = redis.call('HMGET', key, 'state', 'queue', 'due_at', 'again')
    local state, queue = record[1] or 'unknown', record[2]
    local due = state == 'waiting' and tonumber(record[3]) <= now
    if state == 'accepted' or due then
      local bell = redis.call('ZSCORE', prefix .. 'rung:' .. queue, id)
      local youngest = tonumber(redis.call('GET', prefix .. 'answered:' .. queue) or 0)
      -- Of a job rung for again nobody knows which bell this answers. Were it an old one at the head of a
      -- backlog, the time of the new one would make the whole backlog look overtaken.
      if bell and record[4] ~= '1' and tonumber(bell) > youngest then
        redis.call('SET', prefix .. 'answered:' .. queue, bell)
      end
      redis.call('ZREM', prefix .. 'rung:' .. queue, id)
      redis.call('ZREM', prefix .. 'waiting', id)
      redis.call('ZADD', prefix .. 'leases:' .. worker, now, id)
      redis.call('HSET', key, 'state', 'running', 'changed_at', now, 'lease', worker .. '|' .. token)
      redis.call('HINCRBY', key, 'starts', 1)
      redis.call('HINCRBY', key, 'claims', 1)
      state = 'claimed'
    elseif state == 'running' and holds(id, worker, token) then
      state = 'claimed'
    end
    answers[index] = {state}
    if state == 'claimed' then
      local told = redis.call('HMGET', key, 'task', 'payload', 'run_id', 'request_id', 'tries', 'starts', 'waiting_since')
      told[7] = told[7] and now - tonumber(told[7]) or 0
      answers[index] = {state, unpack(told)}
    end
  end
  return answers
end

-- finish: worker, token, seconds to keep the record, number of jobs, then for each: id, result (JSON),
-- number of following jobs, accept_one's arguments for each. The following jobs are accepted in the same
-- step, so none is lost or accepted twice. Answers for each: done, or the state that forbids it.
function operations.finish()
  local worker, token, ttl, answers = arg(), arg(), number_arg(), {}
  for index = 1, number_arg() do
    local id, result, following = arg(), arg(), number_arg()
    local key, state = job_key(id), nil
    state = redis.call('HGET', key, 'state') or 'unknown'
    local mine = holds(id, worker, token)
    for _ = 1, following do
      if state == 'running' and mine then
        accept_one()
      else
        cursor = cursor + 8
      end
    end
    if state == 'running' and mine then
      redis.call('ZREM', prefix .. 'leases:' .. worker, id)
      forget_subject(id)
      redis.call('HDEL', key, 'payload', 'failure', 'due_at')
      redis.call('HSET', key, 'state', 'done', 'changed_at', now, 'result', result)
      redis.call('EXPIRE', key, ttl)
      redis.call('HINCRBY', prefix .. 'counts', 'done', 1)
      answers[index] = 'done'
    elseif state == 'done' and mine then
      answers[index] = 'done'
    else
      answers[index] = state == 'done' and 'done_elsewhere' or state
    end
  end
  return answers
end

-- wait: worker, token, id, delay ms, whether a try is spent (1 or 0), failure (JSON). Answers waiting, or the state.
function operations.wait()
  local worker, token, id, delay, spent, failure = arg(), arg(), arg(), number_arg(), number_arg(), arg()
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state == 'running' and holds(id, worker, token) then
    redis.call('ZREM', prefix .. 'leases:' .. worker, id)
    failed(id, failure)
    redis.call('HINCRBY', job_key(id), 'tries', spent)
    redis.call('HSETNX', job_key(id), 'waiting_since', now)
    -- The lease stays written, so that a repeat of this call is known as one.
    redis.call('HSET', job_key(id), 'state', 'waiting', 'changed_at', now, 'due_at', now + delay, 'starts', 0)
    redis.call('ZADD', prefix .. 'waiting', now + delay, id)
    return 'waiting'
  end
  return state
end

-- bury: worker, token, id, failure (JSON), code version. Answers dead, or the state that forbids it.
function operations.bury()
  local worker, token, id, failure, code_version = arg(), arg(), arg(), arg(), arg()
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state == 'running' and holds(id, worker, token) then
    redis.call('ZREM', prefix .. 'leases:' .. worker, id)
    die(id, failure, code_version)
    return 'dead'
  end
  return state
end

-- give_back: worker, token, id, max starts, code version. The worker is ending; the start still counts.
-- Answers the ids to ring for.
function operations.give_back()
  local worker, token, id, max_starts, code_version, rung = arg(), arg(), arg(), number_arg(), arg(), {}
  if field(id, 'state') == 'running' and holds(id, worker, token) then
    lapse(id, worker, tonumber(field(id, 'starts')) >= max_starts, code_version, rung)
  end
  return rung
end

-- beat: worker, lease ms, stale ms, most claims, code version, number of ids, ids the worker is working on.
-- A lease older than stale ms that the worker does not know of (a claim or settlement whose answer was
-- lost) is given back without counting as a crash; the cap on claims keeps that from going on for ever.
-- Answers the ids to ring for.
function operations.beat()
  local worker, lease_ms, stale_ms, max_claims, code_version = arg(), number_arg(), number_arg(), number_arg(), arg()
  local working, rung = {}, {}
  for _ = 1, number_arg() do
    working[arg()] = true
  end
  redis.call('ZADD', prefix .. 'workers', now + lease_ms, worker)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases:' .. worker, 0, now - stale_ms)) do
    if not working[id] then
      local crashed = tonumber(field(id, 'claims')) >= max_claims
      if not crashed then
        redis.call('HINCRBY', job_key(id), 'starts', -1)
      end
      lapse(id, worker, crashed, code_version, rung)
    end
  end
  return rung
end

-- retire: worker, max starts, code version. Its leases end at once. Answers the ids to ring for.
function operations.retire()
  local worker, max_starts, code_version, rung = arg(), number_arg(), arg(), {}
  for _, id in ipairs(redis.call('ZRANGE', prefix .. 'leases:' .. worker, 0, -1)) do
    lapse(id, worker, tonumber(field(id, 'starts')) >= max_starts, code_version, rung)
  end
  redis.call('ZREM', prefix .. 'workers', worker)
  return rung
end

-- reconcile: most jobs to ring for, grace ms, max starts, code version, number of queues, queues.
-- Answers the ids to ring for: of silent workers, due, and with lost bells. A time further ahead than any
-- that we write was written before the server's clock was set back; it counts as past, or its job would
-- wait for the clock to catch up.
function operations.reconcile()
  local batch, grace, max_starts, code_version, rung = number_arg(), number_arg(), number_arg(), arg(), {}
  for _, worker in ipairs(past('workers', batch)) do
    local leases = prefix .. 'leases:' .. worker
    for _, id in ipairs(redis.call('ZRANGE', leases, 0, batch - 1)) do
      lapse(id, worker, tonumber(field(id, 'starts')) >= max_starts, code_version, rung)
    end
    if redis.call('EXISTS', leases) == 0 then
      redis.call('ZREM', prefix .. 'workers', worker)
    end
  end
  for _, id in ipairs(past('waiting', batch)) do
    redis.call('ZREM', prefix .. 'waiting', id)
    ring(id, field(id, 'queue'), 1)
    table.insert(rung, id)
  end
  for _ = 1, number_arg() do
    local queue = arg()
    -- With messages still queued, only a bell that a younger one has overtaken is lost; a long backlog
    -- must not be rung twice. With none queued, every bell old enough is.
    local before, answered, bells = now - grace, prefix .. 'answered:' .. queue, prefix .. 'rung:' .. queue
    if redis.call('LLEN', queue) > 0 then
      local youngest = tonumber(redis.call('GET', answered) or 0)
      if youngest > now then
        youngest = 0
        redis.call('DEL', answered)
      end
      before = math.min(before, youngest - 1)
    end
    for _, range in ipairs({{0, before}, {'(' .. now, '+inf'}}) do
      for _, id in ipairs(redis.call('ZRANGEBYSCORE', bells, range[1], range[2], 'LIMIT', 0, batch)) do
        redis.call('ZADD', bells, now, id)
        redis.call('HSET', job_key(id), 'again', 1)
        table.insert(rung, id)
      end
    end
  end
  return rung
end

-- replay: id, by, why. Answers replayed, or the state that forbids it.
function operations.replay()
  local id, by, why = arg(), arg(), arg()
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state ~= 'dead' then
    return state
  end
  redis.call('ZREM', prefix .. 'dead', id)
  redis.call('LPOP', mirror)
  redis.call('HSET', job_key(id), 'starts', 0, 'claims', 0, 'tries', 0)
  redis.call('HDEL', job_key(id), 'waiting_since')
  history(job_key(id), {what = 'replayed', by = by, why = why})
  redis.call('HSET', prefix .. 'subjects', field(id, 'subject'), id)
  ring(id, field(id, 'queue'), 1)
  return 'replayed'
end

-- discard: id, by, why. Answers discarded, or the state that forbids it.
function operations.discard()
  local id, by, why = arg(), arg(), arg()
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state ~= 'dead' then
    return state
  end
  redis.call('ZREM', prefix .. 'dead', id)
  redis.call('LPOP', mirror)
  forget_subject(id)
  redis.call('HSET', job_key(id), 'state', 'discarded', 'changed_at', now)
  redis.call('ZADD', prefix .. 'discarded', now, id)
  history(job_key(id), {what = 'discarded', by = by, why = why})
  return 'discarded'
end

-- keep_raw: id, item, queue, reason, detail, sha256. Answers kept.
function operations.keep_raw()
  local id, item, queue, reason, detail, sha256 = arg(), arg(), arg(), arg(), arg(), arg()
  if redis.call('EXISTS', prefix .. 'raw:' .. id) == 0 then
    redis.call('HSET', prefix .. 'raw:' .. id, 'item', item, 'queue', queue, 'reason', reason, 'detail', detail,
      'sha256', sha256, 'size', #item, 'kept_at', now, 'state', 'dead')
    redis.call('ZADD', prefix .. 'raw', now, id)
    redis.call('LPUSH', mirror, 'see rmos dlq list')
  end
  return 'kept'
end

-- settle_raw: id, replayed or discarded, by, why. A replayed item goes back to its queue, verbatim, in this
-- very step. Answers what was asked for, or the state that forbids it.
function operations.settle_raw()
  local id, what, by, why = arg(), arg(), arg(), arg()
  local key = prefix .. 'raw:' .. id
  local state = redis.call('HGET', key, 'state') or 'unknown'
  if state ~= 'dead' then
    return state
  end
  redis.call('ZREM', prefix .. 'raw', id)
  redis.call('LPOP', mirror)
  if what == 'replayed' then
    redis.call('LPUSH', redis.call('HGET', key, 'queue'), redis.call('HGET', key, 'item'))
    redis.call('DEL', key)
  else
    redis.call('HSET', key, 'state', 'discarded')
    redis.call('ZADD', prefix .. 'raw_discarded', now, id)
    history(key, {what = what, by = by, why = why})
  end
  return what
end

-- Where a record's state says that its id must lie; nil when it must lie nowhere.
local function home_of(id, state)
  if state == 'accepted' then
    return prefix .. 'rung:' .. field(id, 'queue')
  elseif state == 'running' then
    return prefix .. 'leases:' .. (string.match(field(id, 'lease'), '^(.*)|') or '')
  elseif state == 'waiting' or state == 'dead' or state == 'discarded' then
    return prefix .. state
  end
end

local function strays(id, home)
  local found = {}
  for _, index in ipairs({'waiting', 'dead', 'discarded', 'rung:' .. field(id, 'queue')}) do
    if prefix .. index ~= home and redis.call('ZSCORE', prefix .. index, id) then
      table.insert(found, prefix .. index)
    end
  end
  return found
end

local function fault_of(id)
  local state = redis.call('HGET', job_key(id), 'state')
  if not state then
    return 'has no record'
  end
  local home = home_of(id, state)
  if home and not redis.call('ZSCORE', home, id) then
    return 'is ' .. state .. ' and not in ' .. home
  end
  local stray = strays(id, home)[1]
  return stray and 'is ' .. state .. ' and also in ' .. stray or ''
end

-- check: ids. Answers for each what is wrong with it, or an empty string.
function operations.check()
  local faults = {}
  for index = 2, #ARGV do
    faults[index - 1] = fault_of(ARGV[index])
  end
  return faults
end

-- mend: id, number of queues, queues, worker instances. Puts a faulty job where its state says; an unfinished
-- one is rung for again, and one without a record is discarded, visibly. Answers its state, or ok.
function operations.mend()
  local id = arg()
  if fault_of(id) == '' then
    return 'ok'
  end
  local key, state = job_key(id), redis.call('HGET', job_key(id), 'state')
  for _ = 1, number_arg() do
    redis.call('ZREM', prefix .. 'rung:' .. arg(), id)
  end
  while cursor < #ARGV do
    redis.call('ZREM', prefix .. 'leases:' .. arg(), id)
  end
  redis.call('ZREM', prefix .. 'waiting', id)
  local was_dead = redis.call('ZREM', prefix .. 'dead', id)
  redis.call('ZREM', prefix .. 'discarded', id)
  if was_dead == 1 then
    redis.call('LPOP', mirror)
  end
  if not state then
    redis.call('HSET', key, 'task', 'unknown', 'queue', 'unknown', 'run_id', '', 'request_id', '', 'sha256', '',
      'subject', '', 'accepted_at', now, 'starts', 0, 'claims', 0, 'tries', 0, 'changed_at', now)
    state = 'discarded'
  end
  history(key, {what = 'mended', by = 'doctor', why = 'was in the wrong index'})
  if state == 'dead' or state == 'discarded' then
    redis.call('HSET', key, 'state', state)
    redis.call('ZADD', prefix .. state, now, id)
    if state == 'dead' then
      redis.call('LPUSH', mirror, 'see rmos dlq list')
    end
  elseif state ~= 'done' then
    ring(id, field(id, 'queue'), 1)
    state = 'accepted'
  end
  return state
end

-- stats: number of queues, queues. Answers accepted, done, dead, discarded, waiting, running, ringing, raw,
-- then the length of each queue and of the mirror.
function operations.stats()
  local counts = redis.call('HMGET', prefix .. 'counts', 'accepted', 'done')
  local running, ringing, lengths = 0, 0, {}
  for _, worker in ipairs(redis.call('ZRANGE', prefix .. 'workers', 0, -1)) do
    running = running + redis.call('ZCARD', prefix .. 'leases:' .. worker)
  end
  for index = 1, number_arg() do
    local queue = arg()
    ringing = ringing + redis.call('ZCARD', prefix .. 'rung:' .. queue)
    lengths[index] = redis.call('LLEN', queue)
  end
  return {tonumber(counts[1] or 0), tonumber(counts[2] or 0), redis.call('ZCARD', prefix .. 'dead'),
    redis.call('ZCARD', prefix .. 'discarded'), redis.call('ZCARD', prefix .. 'waiting'), running, ringing,
    redis.call('ZCARD', prefix .. 'raw'), redis.call('LLEN', mirror), unpack(lengths)}
end

return operations[ARGV[1]]()
