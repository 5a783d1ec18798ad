-- The job ledger: every transition of a job is one run of this script, so it happens whole or not at all.
-- All times are the server's, in milliseconds since 1970. Every operation may be repeated safely.
--
-- Put before it by script.py: TASKS, by name: queue, topic, ids_per_bell; QUEUES, their names in order.
-- KEYS[1]  prefix, "rmos:" outside tests. Keys below it:
--   job:<id>         hash  the record: task state run_id request_id sha256 accepted_at changed_at starts claims
--                          tries lease due_at waiting_since result failure first_failed_at last_failed_at
--                          code_version history replay again (1 if rung for more than once)
--   payload:<id>     str   until the job is done; by itself, so that the small record stays in its compact form
--   rung:<queue>     zset  accepted jobs by the time their bell was last rung
--   answered:<queue> str   ring time of the youngest first bell that was answered
--   wake:<queue>     list  tokens that wake workers waiting for the queue; losing them costs a second
--   bells            str   bells rung again so far, which makes their ids unique
--   leases:<worker>  zset  running jobs by the time they were claimed
--   waiting          zset  jobs put off, by due time
--   held             zset  jobs put off for the advisory store's sake, by when; some may have moved on since
--   dead, discarded  zset  by the time they became so
--   counts           hash  accepted, done: they only grow
--   subjects         hash  "<topic>:<run id>" -> the latest job on it that is not done
--   workers          zset  worker instances by the time from which they count as silent
--   raw:<id>         hash  a message that is no bell of ours: item queue reason detail kept_at size
--   raw, raw_discarded  zset  by time
--   raw_replay:<id>  str   for a minute, the token of its replay
--   letters          str   raw letters so far, which makes their ids unique
-- KEYS[2]  the list that mirrors the number of dead letters for Flower's Broker page (its items say nothing)
-- ARGV[1]  the operation; the rest are its arguments, described at each.
--
-- A job is in exactly one of rung:*, waiting, leases:*, dead, discarded, or done (counted, its record expires).
-- Its bell is pushed onto the task's queue in the very step that makes it ready, and popped by take.

local prefix, mirror = KEYS[1], KEYS[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local cursor = 1
-- Above the longest delay and the longest lease that the settings allow: a day, and some.
local LONGEST_MS = 90000000
-- More than any bell of 100 ids needs; checked first, so that no giant is ever looked into.
local MAX_BELL_BYTES = 65536
-- Above the number of workers that could wait for one queue.
local MAX_TOKENS = 64
-- Of one command: Lua's stack has room for some 8,000. Even, for members that come in pairs.
local MOST_MEMBERS = 1000

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

local function starts(id)
  return tonumber(redis.call('HGET', job_key(id), 'starts') or 0)
end

-- One command for many members costs the server a fraction of one for each.
local function call_with(command, key, members)
  for first = 1, #members, MOST_MEMBERS do
    redis.call(command, key, unpack(members, first, math.min(first + MOST_MEMBERS - 1, #members)))
  end
end

-- Nil for an id without a record, or with a task of another version. Such jobs stay where they are, where
-- doctor finds them, and must not keep the others from their turn.
local function spec_of(id)
  return TASKS[field(id, 'task')]
end

-- A doorbell as Celery takes it: no payload, only the ids. All that differs between two bells is told here,
-- so what is not byte for byte such a text was not rung by us.
local function bell(task, ids, message_id)
  return '{"body":"[[[\\"' .. table.concat(ids, '\\",\\"') .. '\\"]],{},{}]","content-encoding":"utf-8"'
    .. ',"content-type":"application/json","headers":{"task":"' .. task .. '","id":"' .. message_id
    .. '","argsrepr":"' .. #ids .. ' job(s)"},"properties":{"delivery_tag":"' .. message_id
    .. '","delivery_info":{"exchange":"","routing_key":"' .. TASKS[task].queue .. '"}}}'
end
local BELL = '^{"body":"%[%[%[\\"([^%]]+)\\"%]%],.-"headers":{"task":"([^"]+)","id":"([^"]+)"'

-- What a raw item rings for, as {task, ids, id, fresh}: fresh when none of the jobs was started in vain. Or nil,
-- with the reason and detail that keep it off the workers: it is no bell of ours for jobs that we know.
local function read_bell(item, queue)
  if #item > MAX_BELL_BYTES then
    return nil, 'malformed_message', 'larger than any doorbell'
  end
  local joined, task, message_id = string.match(item, BELL)
  local spec = task and TASKS[task]
  if not spec then
    return nil, 'malformed_message', 'not a doorbell as the ledger rings them'
  elseif spec.queue ~= queue then
    return nil, 'malformed_message', 'a doorbell of another queue'
  end
  local ids, seen, known, fresh = {}, {}, true, true
  for id in string.gmatch(joined, '[^\\",]+') do
    local told = redis.call('HMGET', job_key(id), 'task', 'starts')
    table.insert(ids, id)
    known = known and not seen[id] and told[1] == task
    fresh = fresh and tonumber(told[2] or 0) == 0
    seen[id] = true
  end
  if #ids < 1 or #ids > spec.ids_per_bell or bell(task, ids, message_id) ~= item then
    return nil, 'malformed_message', 'not a doorbell as the ledger rings them'
  elseif message_id ~= ids[1] and not string.match(string.sub(message_id, #ids[1] + 1), '^~%d+$') then
    return nil, 'malformed_message', 'not a doorbell as the ledger rings them'
  elseif not known then
    return nil, 'unknown_job', 'the ledger has no such job on this queue'
  end
  return {task = task, ids = ids, message_id = message_id, fresh = fresh}
end

-- Jobs to ring for when the operation ends: {id, task, whether again, whether alone}.
local ready = {}

local function ring(id, task, again)
  table.insert(ready, {id, task, again, again and starts(id) > 0})
end

local function ring_again(id)
  redis.call('HSET', job_key(id), 'state', 'accepted', 'changed_at', now, 'again', 1)
  redis.call('HDEL', job_key(id), 'lease')
  ring(id, field(id, 'task'), true)
end

local function wake(queue, most)
  local tokens = prefix .. 'wake:' .. queue
  for _ = 1, math.min(most, MAX_TOKENS - redis.call('LLEN', tokens)) do
    redis.call('LPUSH', tokens, 1)
  end
end

-- One bell for as many jobs in a row as their task allows, but one of its own for a job that was started in
-- vain: it may be what killed its worker. The first bell of a job bears its id, so that
-- Flower finds it by that; later ones have ids of their own, or revoking the first would silence them.
local function ring_out()
  local rung, position = {}, 1
  while position <= #ready do
    local first, ids, times = ready[position], {}, {}
    local spec = TASKS[first[2]]
    repeat
      table.insert(ids, ready[position][1])
      table.insert(times, now)
      table.insert(times, ready[position][1])
      position = position + 1
      local following = ready[position]
    until #ids == spec.ids_per_bell or first[4] or not following or following[4] or following[2] ~= first[2]
      or following[3] ~= first[3]
    local message_id = first[3] and ids[1] .. '~' .. redis.call('INCR', prefix .. 'bells') or ids[1]
    call_with('ZADD', prefix .. 'rung:' .. spec.queue, times)
    redis.call('LPUSH', spec.queue, bell(first[2], ids, message_id))
    rung[spec.queue] = (rung[spec.queue] or 0) + 1
  end
  for _, queue in ipairs(QUEUES) do
    wake(queue, rung[queue] or 0)
  end
end

local function history(key, entry)
  local told = redis.call('HGET', key, 'history')
  local list = told and cjson.decode(told) or {}
  entry.at = now
  table.insert(list, entry)
  redis.call('HSET', key, 'history', cjson.encode(list))
end

local function subject_of(id)
  local spec = spec_of(id)
  return (spec and spec.topic or '') .. ':' .. field(id, 'run_id')
end

local function forget_subject(id)
  local subject = subject_of(id)
  if redis.call('HGET', prefix .. 'subjects', subject) == id then
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

-- Six arguments: id, task, payload, sha256, run id, request id. Answers new, repeat or conflict.
local ACCEPT_ARGUMENTS = 6
local accepted = 0
-- Fields and values that new jobs bring to subjects.
local subjects = {}
local function accept_one()
  local id, task, payload, sha256, run_id, request_id = arg(), arg(), arg(), arg(), arg(), arg()
  local known = redis.call('HGET', job_key(id), 'sha256')
  if known then
    return known == sha256 and 'repeat' or 'conflict'
  end
  redis.call('HSET', job_key(id), 'task', task, 'sha256', sha256, 'run_id', run_id, 'request_id', request_id,
    'accepted_at', now, 'changed_at', now, 'state', 'accepted')
  redis.call('SET', prefix .. 'payload:' .. id, payload)
  ring(id, task, false)
  accepted = accepted + 1
  table.insert(subjects, TASKS[task].topic .. ':' .. run_id)
  table.insert(subjects, id)
  return 'new'
end

local function write_subjects()
  call_with('HSET', prefix .. 'subjects', subjects)
  subjects = {}
end

-- A job that lost its worker: rung for again, or dead when that has happened too often.
local function lapse(id, worker, exhausted, code_version)
  if not spec_of(id) then
    return
  end
  redis.call('ZREM', prefix .. 'leases:' .. worker, id)
  if exhausted then
    local told = redis.call('HMGET', job_key(id), 'starts', 'claims')
    die(id, cjson.encode({reason = 'crash_loop', error_type = 'WorkerLost', traceback = '',
      message = told[1] .. ' starts (' .. told[2] .. ' claims) without a finish; last worker: ' .. worker}),
      code_version)
  else
    ring_again(id)
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
  write_subjects()
  return outcomes
end

-- Raises the watermark to the youngest bell of these jobs, each rung for once. Of a job rung for again nobody
-- knows which bell is answered. Were it an old one at the head of a backlog, the time of the new one would make
-- the whole backlog look overtaken.
local function note_answered(queue, ids)
  if #ids == 0 then
    return
  end
  local youngest = tonumber(redis.call('GET', prefix .. 'answered:' .. queue) or 0)
  local before = youngest
  for _, bell in ipairs(redis.call('ZMSCORE', prefix .. 'rung:' .. queue, unpack(ids))) do
    youngest = math.max(youngest, bell and tonumber(bell) or 0)
  end
  if youngest > before then
    redis.call('SET', prefix .. 'answered:' .. queue, youngest)
  end
end

-- claim: worker, token, lease ms, number of ids, ids. The token makes a repeated claim the same claim.
-- Answers for each id: {'claimed', task, payload, run id, request id, tries, starts, age in
-- milliseconds of its first wait, or 0} or {state}. A job that was started in vain is claimed alone or not at all.
function operations.claim()
  local worker, token, lease_ms, answers = arg(), arg(), number_arg(), {}
  local lease, leased, payloads, claimed, rung, once = worker .. '|' .. token, {}, {}, {}, {}, {}
  redis.call('ZADD', prefix .. 'workers', now + lease_ms, worker)
  local amount = number_arg()
  for index = 1, amount do
    local id = arg()
    local key = job_key(id)
    local told = redis.call('HMGET', key, 'state', 'task', 'lease', 'run_id', 'request_id', 'tries', 'starts',
      'claims', 'due_at', 'waiting_since', 'again')
    local spec = TASKS[told[2] or '']
    local state, starts = spec and told[1] or 'unknown', tonumber(told[7] or 0)
    -- A bell for several may be older than the start in vain of one of them; that one is rung for alone by now.
    local in_turn = starts == 0 or amount == 1
    if in_turn and (state == 'accepted' or (state == 'waiting' and tonumber(told[9]) <= now)) then
      local queue = spec.queue
      rung[queue], once[queue] = rung[queue] or {}, once[queue] or {}
      if told[11] ~= '1' then
        table.insert(once[queue], id)
      end
      starts, state = starts + 1, 'claimed'
      redis.call('HSET', key, 'state', 'running', 'changed_at', now, 'lease', lease, 'starts', starts,
        'claims', tonumber(told[8] or 0) + 1)
      table.insert(rung[queue], id)
      table.insert(leased, now)
      table.insert(leased, id)
    elseif state == 'running' and told[3] == lease then
      state = 'claimed'
    end
    answers[index] = {state}
    if state == 'claimed' then
      table.insert(claimed, index)
      table.insert(payloads, prefix .. 'payload:' .. id)
      answers[index] = {state, told[2], '', told[4], told[5], told[6] or '0', starts,
        told[10] and now - tonumber(told[10]) or 0}
    end
  end
  for queue, ids in pairs(rung) do
    note_answered(queue, once[queue])
    call_with('ZREM', prefix .. 'rung:' .. queue, ids)
    call_with('ZREM', prefix .. 'waiting', ids)
  end
  call_with('ZADD', prefix .. 'leases:' .. worker, leased)
  if #payloads > 0 then
    for position, payload in ipairs(redis.call('MGET', unpack(payloads))) do
      answers[claimed[position]][3] = payload or ''
    end
  end
  return answers
end

-- finish: worker, token, seconds to keep the record, number of jobs, then for each: id, result (JSON),
-- number of following jobs, accept_one's arguments for each. The following jobs are accepted in the same
-- step, so none is lost or accepted twice. Answers for each: done, or the state that forbids it.
function operations.finish()
  local worker, token, ttl, answers = arg(), arg(), number_arg(), {}
  local ended, payloads, about, followers = {}, {}, {}, {}
  for index = 1, number_arg() do
    local id, result, following = arg(), arg(), number_arg()
    local key = job_key(id)
    local told = redis.call('HMGET', key, 'state', 'lease', 'task', 'run_id', 'failure', 'due_at')
    local state, mine = told[1] or 'unknown', told[2] == worker .. '|' .. token
    if state == 'running' and mine then
      state = 'done'
      if told[5] or told[6] then
        redis.call('HDEL', key, 'failure', 'due_at')
      end
      redis.call('HSET', key, 'state', 'done', 'changed_at', now, 'result', result)
      redis.call('EXPIRE', key, ttl)
      table.insert(ended, id)
      table.insert(payloads, prefix .. 'payload:' .. id)
      table.insert(about, TASKS[told[3]].topic .. ':' .. told[4])
      table.insert(followers, {cursor, following})
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
    for _ = 1, place[2] do
      accept_one()
    end
  end
  write_subjects()
  return answers
end

-- wait: worker, token, id, delay ms, whether a try is spent (1 or 0), failure (JSON), whether for the advisory
-- store's sake (1 or 0). Answers waiting, or the state.
function operations.wait()
  local worker, token, id, delay, spent, failure = arg(), arg(), arg(), number_arg(), number_arg(), arg()
  local held = arg() == '1'
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state == 'running' and holds(id, worker, token) then
    redis.call('ZREM', prefix .. 'leases:' .. worker, id)
    failed(id, failure)
    redis.call('HINCRBY', job_key(id), 'tries', spent)
    redis.call('HSETNX', job_key(id), 'waiting_since', now)
    -- The lease stays written, so that a repeat of this call is known as one.
    redis.call('HSET', job_key(id), 'state', 'waiting', 'changed_at', now, 'due_at', now + delay, 'starts', 0)
    redis.call('ZADD', prefix .. 'waiting', now + delay, id)
    if held then
      redis.call('ZADD', prefix .. 'held', now, id)
      -- No job waits as long as that at a time; without an outage nobody else would drop those that moved on.
      redis.call('ZREMRANGEBYSCORE', prefix .. 'held', '-inf', now - LONGEST_MS)
    end
    return 'waiting'
  end
  return state
end

-- forward: most jobs, a time in milliseconds or +inf. Makes due now what was put off up to then for the advisory
-- store's sake, the longest first, and waits since for nothing else. Answers how many.
function operations.forward()
  local most, before, moved, held = number_arg(), arg(), 0, prefix .. 'held'
  local found = redis.call('ZRANGEBYSCORE', held, '-inf', before, 'WITHSCORES', 'LIMIT', 0, most + MOST_MEMBERS)
  for index = 1, #found, 2 do
    if moved == most then
      break
    end
    local id = found[index]
    local told = redis.call('HMGET', job_key(id), 'state', 'changed_at', 'due_at')
    redis.call('ZREM', held, id)
    if told[1] == 'waiting' and tonumber(told[2]) == tonumber(found[index + 1]) and tonumber(told[3]) > now then
      redis.call('HSET', job_key(id), 'due_at', now)
      redis.call('ZADD', prefix .. 'waiting', now, id)
      moved = moved + 1
    end
  end
  return moved
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
-- Answers the state afterwards.
function operations.give_back()
  local worker, token, id, max_starts, code_version = arg(), arg(), arg(), number_arg(), arg()
  if field(id, 'state') == 'running' and holds(id, worker, token) then
    lapse(id, worker, starts(id) >= max_starts, code_version)
  end
  return field(id, 'state')
end

-- beat: worker, lease ms, stale ms, most claims, code version, number of ids, ids the worker is working on.
-- A lease older than stale ms that the worker does not know of (a claim or settlement whose answer was
-- lost) is given back without counting as a crash; the cap on claims keeps that from going on for ever.
-- Answers the number of jobs given back.
function operations.beat()
  local worker, lease_ms, stale_ms, max_claims, code_version = arg(), number_arg(), number_arg(), number_arg(), arg()
  local working, lapsed = {}, 0
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
      lapse(id, worker, crashed, code_version)
      lapsed = lapsed + 1
    end
  end
  return lapsed
end

-- retire: worker, max starts, code version. Its leases end at once. Answers how many did.
function operations.retire()
  local worker, max_starts, code_version = arg(), number_arg(), arg()
  local leased = redis.call('ZRANGE', prefix .. 'leases:' .. worker, 0, -1)
  for _, id in ipairs(leased) do
    lapse(id, worker, starts(id) >= max_starts, code_version)
  end
  redis.call('ZREM', prefix .. 'workers', worker)
  return #leased
end

-- ring: ids. Bells that were taken and will not be answered; jobs that moved on are left alone.
function operations.ring()
  while cursor < #ARGV do
    local id = arg()
    if field(id, 'state') == 'accepted' then
      ring_again(id)
    end
  end
end

-- keep_raw: item, queue, reason, detail.
local function keep_raw(item, queue, reason, detail)
  local id = string.format('%d-%d', now, redis.call('INCR', prefix .. 'letters'))
  redis.call('HSET', prefix .. 'raw:' .. id, 'item', item, 'queue', queue, 'reason', reason, 'detail', detail,
    'size', #item, 'kept_at', now, 'state', 'dead')
  redis.call('ZADD', prefix .. 'raw', now, id)
  redis.call('LPUSH', mirror, 'see rmos dlq list')
  return id
end

-- Adds the bells that lie next in the queue to one that was popped, as long as their task and ``most`` ids
-- allow: work that waits is done in groups, work that does not is done at once. A job that was started in vain
-- is done alone, so that one which kills its worker takes no other with it.
local function join(first, queue, most)
  local ids, seen = first.ids, {}
  for _, id in ipairs(ids) do
    seen[id] = true
  end
  while first.fresh and #ids < most do
    local item = redis.call('LINDEX', queue, -1)
    local following = item and read_bell(item, queue)
    if not following or following.task ~= first.task or not following.fresh or #ids + #following.ids > most then
      break
    end
    redis.call('RPOP', queue)
    for _, id in ipairs(following.ids) do
      if not seen[id] then
        table.insert(ids, id)
        seen[id] = true
      end
    end
  end
  return bell(first.task, ids, first.message_id)
end

-- take: most messages, whether to join bells (1 or 0), queues. Pops from each queue in turn. A bell that we rang
-- is answered as {queue, item}; anything else is kept among the dead letters in this very step and answered as
-- {queue, '', reason, id}. With all queues empty the answer is {}. A bell whose answer is lost counts as lost,
-- and is rung again.
function operations.take()
  local most, joining, queues, share, found = number_arg(), arg() == '1', {}, {}, {}
  while cursor < #ARGV do
    local queue = arg()
    table.insert(queues, queue)
    -- What waits is spread over all the messages that may be taken.
    share[queue] = joining and math.ceil(redis.call('LLEN', queue) / most) or 1
  end
  while #found < most and #queues > 0 do
    local left = {}
    for _, queue in ipairs(queues) do
      local item = #found < most and redis.call('RPOP', queue)
      if item then
        local first, reason, detail = read_bell(item, queue)
        if first then
          local together = math.min(share[queue], TASKS[first.task].ids_per_bell)
          table.insert(found, {queue, together > #first.ids and join(first, queue, together) or item})
        else
          table.insert(found, {queue, '', reason, keep_raw(item, queue, reason, detail)})
        end
        table.insert(left, queue)
      elseif #found < most then
        redis.call('DEL', prefix .. 'wake:' .. queue)
      end
    end
    queues = left
  end
  return found
end

-- reconcile: most jobs of each kind to ring for, grace ms, max starts, code version.
-- Rings for the jobs of silent workers, the ones due, and those with lost bells, and answers how many. A time
-- further ahead than any that we write was written before the server's clock was set back; it counts as past,
-- or its job would wait for the clock to catch up.
function operations.reconcile()
  local batch, grace, max_starts, code_version = number_arg(), number_arg(), number_arg(), arg()
  for _, worker in ipairs(past('workers', batch)) do
    local leases = prefix .. 'leases:' .. worker
    for _, id in ipairs(redis.call('ZRANGE', leases, 0, batch - 1)) do
      lapse(id, worker, starts(id) >= max_starts, code_version)
    end
    if redis.call('EXISTS', leases) == 0 then
      redis.call('ZREM', prefix .. 'workers', worker)
    end
  end
  for _, id in ipairs(past('waiting', batch)) do
    if spec_of(id) then
      redis.call('ZREM', prefix .. 'waiting', id)
      ring_again(id)
    end
  end
  for _, queue in ipairs(QUEUES) do
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
        if spec_of(id) then
          ring_again(id)
        end
      end
    end
  end
  return #ready
end

-- replay: id, by, why, token. The token makes a repeated replay the same replay. Answers replayed, or the
-- state that forbids it.
function operations.replay()
  local id, by, why, token = arg(), arg(), arg(), arg()
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state ~= 'dead' then
    return field(id, 'replay') == token and 'replayed' or state
  end
  redis.call('HSET', job_key(id), 'replay', token)
  redis.call('ZREM', prefix .. 'dead', id)
  redis.call('LPOP', mirror)
  redis.call('HDEL', job_key(id), 'waiting_since', 'starts', 'claims', 'tries')
  history(job_key(id), {what = 'replayed', by = by, why = why})
  redis.call('HSET', prefix .. 'subjects', subject_of(id), id)
  ring_again(id)
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

-- settle_raw: id, replayed or discarded, by, why, token. A replayed item goes back to its queue, verbatim, in
-- this very step; for a minute its token is known, so that a repeat of this call is. Answers what was asked
-- for, or the state that forbids it.
function operations.settle_raw()
  local id, what, by, why, token = arg(), arg(), arg(), arg(), arg()
  local key, replayed = prefix .. 'raw:' .. id, prefix .. 'raw_replay:' .. id
  local state = redis.call('HGET', key, 'state') or 'unknown'
  if state ~= 'dead' then
    return redis.call('GET', replayed) == token and what or state
  end
  redis.call('ZREM', prefix .. 'raw', id)
  redis.call('LPOP', mirror)
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

local function queue_of(id)
  local spec = spec_of(id)
  return spec and spec.queue or ''
end

-- Where a record's state says that its id must lie; nil when it must lie nowhere.
local function home_of(id, state)
  if state == 'accepted' then
    return prefix .. 'rung:' .. queue_of(id)
  elseif state == 'running' then
    return prefix .. 'leases:' .. (string.match(field(id, 'lease'), '^(.*)|') or '')
  elseif state == 'waiting' or state == 'dead' or state == 'discarded' then
    return prefix .. state
  end
end

local function strays(id, home)
  local found = {}
  for _, index in ipairs({'waiting', 'dead', 'discarded', 'rung:' .. queue_of(id)}) do
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

-- mend: id, worker instances. Puts a faulty job where its state says; an unfinished
-- one is rung for again, and one without a record is discarded, visibly. Answers its state, or ok.
function operations.mend()
  local id = arg()
  if fault_of(id) == '' then
    return 'ok'
  end
  local key, state = job_key(id), redis.call('HGET', job_key(id), 'state')
  for _, queue in ipairs(QUEUES) do
    redis.call('ZREM', prefix .. 'rung:' .. queue, id)
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
    redis.call('HSET', key, 'task', 'unknown', 'run_id', '', 'request_id', '', 'sha256', '', 'accepted_at', now,
      'changed_at', now)
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
    ring_again(id)
    state = 'accepted'
  end
  return state
end

-- stats. Answers accepted, done, dead, discarded, waiting, running, ringing, raw,
-- then the length of each queue and of the mirror.
function operations.stats()
  local counts = redis.call('HMGET', prefix .. 'counts', 'accepted', 'done')
  local running, ringing, lengths = 0, 0, {}
  for _, worker in ipairs(redis.call('ZRANGE', prefix .. 'workers', 0, -1)) do
    running = running + redis.call('ZCARD', prefix .. 'leases:' .. worker)
  end
  for index, queue in ipairs(QUEUES) do
    ringing = ringing + redis.call('ZCARD', prefix .. 'rung:' .. queue)
    lengths[index] = redis.call('LLEN', queue)
  end
  return {tonumber(counts[1] or 0), tonumber(counts[2] or 0), redis.call('ZCARD', prefix .. 'dead'),
    redis.call('ZCARD', prefix .. 'discarded'), redis.call('ZCARD', prefix .. 'waiting'), running, ringing,
    redis.call('ZCARD', prefix .. 'raw'), redis.call('LLEN', mirror), unpack(lengths)}
end

local answer = operations[ARGV[1]]()
ring_out()
if accepted > 0 then
  redis.call('HINCRBY', prefix .. 'counts', 'accepted', accepted)
end
return answer
