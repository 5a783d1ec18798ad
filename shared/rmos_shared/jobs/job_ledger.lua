-- The job ledger: every transition of a job is one run of this script, so it happens whole or not at all.
-- All times are the server's, in milliseconds since 1970. Every operation may be repeated safely.
--
-- Put before it by script.py: TASKS, by name: queue, topic, ids_per_bell; QUEUES, their names in order.
-- KEYS[1]  prefix, "rmos:" outside tests. Keys below it:
--   job:<id>         hash  the record: task state run_id request_id sha256 accepted_at changed_at starts claims
--                          tries lease due_at waiting_since result failure first_failed_at last_failed_at
--                          code_version history replay again (1 if rung for more than once); history: a JSON
--                          list of what happened beside the normal way, the last MOST_HISTORY of it
--   payload:<id>     str   until the job is done; by itself, so that the small record stays in its compact form
--   rung:<queue>     zset  accepted jobs by the time their bell was last rung
--   answered:<queue> str   ring time of the youngest first bell that was answered
--   wake:<queue>     list  tokens that wake workers waiting for the queue; losing them costs a second
--   bells            str   bells rung again so far, which makes their ids unique
--   queues           set   every queue that any version has rung on
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
--
-- Other programs, and other versions of this one, may write to the same server. An operation makes sure of the
-- keys that it will write before it writes the first, so that none stops half-way. What is of a wrong type is
-- told as DAMAGED; a record of a task that this version does not know stays where it is, for one that does.

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
-- Entries that one job keeps; of a longer history the oldest go, and are counted.
local MOST_HISTORY = 50
-- Pages of an index that a round looks through for jobs that it can do something about.
local MOST_PAGES = 20

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

local function damaged(key, is, wanted)
  error('DAMAGED ' .. key .. ' is ' .. is .. ', not ' .. wanted)
end

-- Makes sure, before the first write, that a key is of the type that it must have; or not there.
local function need(wanted, key)
  local is = redis.call('TYPE', key).ok
  if is ~= wanted and is ~= 'none' then
    damaged(key, is, wanted)
  end
end

local function is_well(wanted, key)
  local is = redis.call('TYPE', key).ok
  return is == wanted or is == 'none'
end

-- Fields of a record; nil when what lies there is no record. Whatever a job's own record is like, it must not keep
-- the others from their turn.
local function fields(id, ...)
  local told = redis.pcall('HMGET', job_key(id), ...)
  if told.err then
    return nil
  end
  return told
end

local function field(id, name)
  local told = fields(id, name)
  return told and told[1] or ''
end

-- The record of the one job that an operation is about.
local function need_record(id)
  need('hash', job_key(id))
end

local function number(text)
  return tonumber(text or 0) or 0
end

local function starts(id)
  return number(field(id, 'starts'))
end

-- A counter or mark that may be lost without loss: what is of a wrong type is begun anew.
local function next_number(key)
  local count = redis.pcall('INCR', key)
  if type(count) ~= 'number' then
    redis.call('SET', key, now)
    count = redis.call('INCR', key)
  end
  return count
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

-- What a doorbell tells Flower, as JSON: how many jobs of which task, and what the first of them is about. In plain
-- ASCII, whatever another program wrote into the record: a bell that is no UTF-8 could not be read.
local function told_of(task, ids, run_id, request_id)
  local told = task .. ', ' .. #ids .. ' job(s), run ' .. run_id
    .. (request_id ~= '' and ', request ' .. request_id or '')
  return cjson.encode((string.gsub(told, '[^ -~]', '?')))
end

-- A doorbell as Celery takes it: no payload, only the ids. All that differs between two bells is told here, so
-- what is not byte for byte such a text was not rung by us.
local function bell(task, ids, message_id, told)
  return '{"body":"[[[\\"' .. table.concat(ids, '\\",\\"') .. '\\"]],{},{}]","content-encoding":"utf-8"'
    .. ',"content-type":"application/json","headers":{"task":"' .. task .. '","id":"' .. message_id
    .. '","argsrepr":' .. told .. '},"properties":{"delivery_tag":"' .. message_id
    .. '","delivery_info":{"exchange":"","routing_key":"' .. TASKS[task].queue .. '"}}}'
end
local BELL = '^{"body":"%[%[%[\\"([^%]]+)\\"%]%],.-"headers":{"task":"([^"]+)","id":"([^"]+)","argsrepr":(".-")},"prop'

-- What a raw item rings for, as {task, ids, id, fresh}: fresh when none of the jobs was started in vain. Or nil,
-- with the reason and detail that keep it off the workers: it is no bell of ours for jobs that we know.
local function read_bell(item, queue)
  if #item > MAX_BELL_BYTES then
    return nil, 'malformed_message', 'larger than any doorbell'
  end
  local joined, task, message_id, told = string.match(item, BELL)
  local spec = task and TASKS[task]
  if not task then
    return nil, 'malformed_message', 'not a doorbell as the ledger rings them'
  elseif spec and spec.queue ~= queue then
    return nil, 'malformed_message', 'a doorbell of another queue'
  end
  local ids, seen, twice, known, fresh, whole, first = {}, {}, false, true, true, true, nil
  for id in string.gmatch(joined, '[^\\",]+') do
    local record = fields(id, 'task', 'starts', 'run_id', 'request_id')
    whole = whole and record ~= nil
    record = record or {}
    first = first or record
    table.insert(ids, id)
    known = known and record[1] == task
    fresh = fresh and number(record[2]) == 0
    twice = twice or seen[id]
    seen[id] = true
  end
  if not whole then
    -- What lies in a record's place may be taken away again; until then nobody can tell whose bell it is.
    return nil, 'not_now', ''
  elseif not spec then
    if known and #ids > 0 then
      return nil, 'not_now', ''
    end
    return nil, 'malformed_message', 'not a doorbell as the ledger rings them'
  elseif twice or #ids < 1 or #ids > spec.ids_per_bell or bell(task, ids, message_id, told) ~= item then
    return nil, 'malformed_message', 'not a doorbell as the ledger rings them'
  elseif message_id ~= ids[1] and not (string.sub(message_id, 1, #ids[1]) == ids[1]
      and string.match(string.sub(message_id, #ids[1] + 1), '^~%d+$')) then
    return nil, 'malformed_message', 'not a doorbell as the ledger rings them'
  elseif not known then
    return nil, 'unknown_job', 'the ledger has no such job on this queue'
  end
  local run_id, request_id = first[3] or '', first[4] or ''
  if told_of(task, ids, run_id, request_id) ~= told then
    return nil, 'malformed_message', 'not a doorbell as the ledger rings them'
  end
  return {task = task, ids = ids, message_id = message_id, fresh = fresh, run_id = run_id,
    request_id = request_id}
end

-- Jobs to ring for when the operation ends: {id, task, whether again, whether alone}.
local ready = {}

local function ring(id, task, again, alone, run_id, request_id)
  table.insert(ready, {id, task, again, alone, run_id, request_id})
end

-- Of a job whose task is known, see spec_of.
local function ring_again(id)
  local told = fields(id, 'task', 'starts', 'run_id', 'request_id')
  redis.call('HSET', job_key(id), 'state', 'accepted', 'changed_at', now, 'again', 1)
  redis.call('HDEL', job_key(id), 'lease')
  ring(id, told[1], true, number(told[2]) > 0, told[3] or '', told[4] or '')
end

local function wake(queue, most)
  local tokens = prefix .. 'wake:' .. queue
  local waiting = redis.pcall('LLEN', tokens)
  if type(waiting) ~= 'number' then
    redis.call('DEL', tokens)
    waiting = 0
  end
  for _ = 1, math.min(most, MAX_TOKENS - waiting) do
    redis.call('LPUSH', tokens, 1)
  end
end

-- What ringing for the jobs of a queue will write.
local function need_queue(queue)
  need('zset', prefix .. 'rung:' .. queue)
  need('list', queue)
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
    local message_id = first[3] and ids[1] .. '~' .. next_number(prefix .. 'bells') or ids[1]
    call_with('ZADD', prefix .. 'rung:' .. spec.queue, times)
    redis.call('LPUSH', spec.queue, bell(first[2], ids, message_id, told_of(first[2], ids, first[5], first[6])))
    rung[spec.queue] = (rung[spec.queue] or 0) + 1
  end
  for _, queue in ipairs(QUEUES) do
    if rung[queue] then
      if type(redis.pcall('SADD', prefix .. 'queues', queue)) ~= 'number' then
        redis.call('DEL', prefix .. 'queues') -- each version adds its own again
        redis.call('SADD', prefix .. 'queues', queue)
      end
      wake(queue, rung[queue])
    end
  end
end

-- Adds to what a record tells of itself. The same thing again is counted, not written anew.
local function history(key, entry)
  local told = redis.call('HGET', key, 'history')
  local readable, list = pcall(cjson.decode, told or '[]')
  if not readable or type(list) ~= 'table' then
    list = {}
  end
  local last = list[#list]
  entry.at = now
  if type(last) == 'table' and last.what == entry.what and last.reason and last.reason == entry.reason
    and last.message == entry.message then
    entry.times, entry.since = number(last.times or 1) + 1, last.since or last.at
    list[#list] = entry
  else
    table.insert(list, entry)
  end
  if #list > MOST_HISTORY then
    -- The first becomes a count of those that went, itself among them.
    local dropped = type(list[1]) == 'table' and list[1].dropped or 1
    table.remove(list, 1)
    list[1] = {what = 'earlier', dropped = number(dropped) + 1, at = now}
  end
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

-- The list for Flower's eyes; nothing rests on it, so what is of a wrong type is made anew. Called once the letter is
-- in its index.
local function mirror_one()
  if type(redis.pcall('LPUSH', mirror, 'see rmos dlq list')) ~= 'number' then
    redis.call('DEL', mirror)
    for _ = 1, redis.call('ZCARD', prefix .. 'dead') + redis.call('ZCARD', prefix .. 'raw') do
      redis.call('LPUSH', mirror, 'see rmos dlq list')
    end
  end
end

local function unmirror_one()
  redis.pcall('LPOP', mirror)
end

-- what: put_off or died.
local function failed(id, what, failure)
  local readable, told = pcall(cjson.decode, failure)
  told = readable and type(told) == 'table' and told or {}
  history(job_key(id), {what = what, reason = told.reason, error_type = told.error_type, message = told.message})
  redis.call('HSET', job_key(id), 'failure', failure, 'last_failed_at', now)
  redis.call('HSETNX', job_key(id), 'first_failed_at', now)
end

local function die(id, failure, code_version)
  failed(id, 'died', failure)
  redis.call('HSET', job_key(id), 'state', 'dead', 'changed_at', now, 'code_version', code_version)
  redis.call('ZADD', prefix .. 'dead', now, id)
  mirror_one()
end

-- Six arguments: id, task, payload, sha256, run id, request id. Answers new, repeat or conflict.
local ACCEPT_ARGUMENTS = 6
local accepted = 0
-- Fields and values that new jobs bring to subjects.
local subjects = {}
-- By id, what the records of jobs to accept tell already; need_to_accept asks.
local known_sha256 = {}
local function accept_one()
  local id, task, payload, sha256, run_id, request_id = arg(), arg(), arg(), arg(), arg(), arg()
  local known = known_sha256[id]
  if known then
    return known == sha256 and 'repeat' or 'conflict'
  end
  redis.call('HSET', job_key(id), 'task', task, 'sha256', sha256, 'run_id', run_id, 'request_id', request_id,
    'accepted_at', now, 'changed_at', now, 'state', 'accepted')
  redis.call('SET', prefix .. 'payload:' .. id, payload)
  ring(id, task, false, false, run_id, request_id)
  known_sha256[id] = sha256
  accepted = accepted + 1
  table.insert(subjects, TASKS[task].topic .. ':' .. run_id)
  table.insert(subjects, id)
  return 'new'
end

-- Makes sure of all that accept_one will write for the next jobs among the arguments, without taking them.
local function need_to_accept(amount)
  local queues = {}
  for index = 0, amount - 1 do
    local id, task = ARGV[cursor + 1 + index * ACCEPT_ARGUMENTS], ARGV[cursor + 2 + index * ACCEPT_ARGUMENTS]
    local sha256 = redis.pcall('HGET', job_key(id), 'sha256')
    if type(sha256) == 'table' then
      need_record(id)
    end
    known_sha256[id] = sha256
    queues[TASKS[task].queue] = true
  end
  for queue in pairs(queues) do
    need_queue(queue)
  end
  need('hash', prefix .. 'subjects')
  need('hash', prefix .. 'counts')
end

local function write_subjects()
  call_with('HSET', prefix .. 'subjects', subjects)
  subjects = {}
end

-- What the lapse of any job may write.
local function need_to_lapse()
  for _, queue in ipairs(QUEUES) do
    need_queue(queue)
  end
  need('zset', prefix .. 'dead')
end

-- A job that lost its worker: rung for again, or dead when that has happened too often.
local function lapse(id, worker, exhausted, code_version)
  local spec = spec_of(id)
  if not spec then
    return false
  end
  redis.call('ZREM', prefix .. 'leases:' .. worker, id)
  if exhausted then
    local told = fields(id, 'starts', 'claims')
    die(id, cjson.encode({reason = 'crash_loop', error_type = 'WorkerLost', traceback = '',
      message = number(told[1]) .. ' starts (' .. number(told[2]) .. ' claims) without a finish; last worker: '
        .. worker}), code_version)
  else
    ring_again(id)
  end
  return true
end

local function holds(id, worker, token)
  return field(id, 'lease') == worker .. '|' .. token
end

-- The first members of a range of times that ``takes`` says yes to. Those it says no to stay, and must not hide
-- the others for ever: some pages of them are passed over.
local function first_of(key, from, to, most, takes)
  local found = {}
  for page = 0, MOST_PAGES - 1 do
    local members = redis.call('ZRANGEBYSCORE', key, from, to, 'LIMIT', page * most, most)
    for _, member in ipairs(members) do
      if #found < most and takes(member) then
        table.insert(found, member)
      end
    end
    if #found == most or #members < most then
      break
    end
  end
  return found
end

-- The first members of an index of times that have come, or that lie further ahead than any we write.
local function past(index, most, takes)
  local found = first_of(prefix .. index, 0, now, most, takes)
  for _, member in ipairs(first_of(prefix .. index, now + LONGEST_MS, '+inf', most, takes)) do
    table.insert(found, member)
  end
  return found
end

local operations = {}

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

local function watermark(queue)
  local told = redis.pcall('GET', prefix .. 'answered:' .. queue)
  return type(told) == 'string' and number(told) or 0
end

-- Raises the watermark to the youngest bell of these jobs, each rung for once. Of a job rung for again nobody
-- knows which bell is answered. Were it an old one at the head of a backlog, the time of the new one would make
-- the whole backlog look overtaken.
local function note_answered(queue, ids)
  if #ids == 0 then
    return
  end
  local youngest = watermark(queue)
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
  local put_off = {}
  need('zset', prefix .. 'workers')
  need('zset', prefix .. 'leases:' .. worker)
  local amount = number_arg()
  for index = 1, amount do
    local id = arg()
    local key = job_key(id)
    local told = fields(id, 'state', 'task', 'lease', 'run_id', 'request_id', 'tries', 'starts', 'claims',
      'due_at', 'waiting_since', 'again') or {'damaged'}
    local spec = TASKS[told[2] or '']
    local state, starts = (spec or told[1] == 'damaged') and told[1] or 'unknown', number(told[7])
    -- A bell for several may be older than the start in vain of one of them; that one is rung for alone by now.
    local in_turn = starts == 0 or amount == 1
    if in_turn and (state == 'accepted' or (state == 'waiting' and number(told[9]) <= now)) then
      local queue = spec.queue
      if not rung[queue] then
        -- Before the first write: they are the jobs of one bell, and so of one queue.
        need('zset', prefix .. 'rung:' .. queue)
        need('zset', prefix .. 'waiting')
        rung[queue], once[queue] = {}, {}
      end
      if state == 'waiting' then
        table.insert(put_off, id)
      end
      if told[11] ~= '1' then
        table.insert(once[queue], id)
      end
      starts, state = starts + 1, 'claimed'
      redis.call('HSET', key, 'state', 'running', 'changed_at', now, 'lease', lease, 'starts', starts,
        'claims', number(told[8]) + 1)
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
      answers[index] = {state, told[2], '', told[4] or '', told[5] or '', number(told[6]), starts,
        told[10] and now - number(told[10]) or 0}
    end
  end
  for queue, ids in pairs(rung) do
    note_answered(queue, once[queue])
    call_with('ZREM', prefix .. 'rung:' .. queue, ids)
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

-- finish: worker, token, seconds to keep the record, number of jobs, then for each: id, result (JSON),
-- number of following jobs, accept_one's arguments for each. The following jobs are accepted in the same
-- step, so none is lost or accepted twice. Answers for each: done, or the state that forbids it.
function operations.finish()
  local worker, token, ttl, answers = arg(), arg(), number_arg(), {}
  local ended, payloads, about, followers = {}, {}, {}, {}
  local amount, begin = number_arg(), cursor
  need('zset', prefix .. 'leases:' .. worker)
  need('hash', prefix .. 'counts')
  need('hash', prefix .. 'subjects')
  for _ = 1, amount do
    cursor = cursor + 2
    local following = number_arg()
    if following > 0 then
      need_to_accept(following)
    end
    cursor = cursor + following * ACCEPT_ARGUMENTS
  end
  cursor = begin
  for index = 1, amount do
    local id, result, following = arg(), arg(), number_arg()
    local key = job_key(id)
    local told = fields(id, 'state', 'lease', 'task', 'run_id', 'failure', 'due_at') or {'damaged'}
    local state, mine = told[1] or 'unknown', told[2] == worker .. '|' .. token
    if state == 'running' and mine and TASKS[told[3]] then
      state = 'done'
      if told[5] or told[6] then
        history(key, {what = 'done'})
        redis.call('HDEL', key, 'failure', 'due_at')
      end
      redis.call('HSET', key, 'state', 'done', 'changed_at', now, 'result', result)
      redis.call('EXPIRE', key, ttl)
      table.insert(ended, id)
      table.insert(payloads, prefix .. 'payload:' .. id)
      table.insert(about, TASKS[told[3]].topic .. ':' .. (told[4] or ''))
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
  need_record(id)
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state == 'running' and holds(id, worker, token) then
    need('zset', prefix .. 'leases:' .. worker)
    need('zset', prefix .. 'waiting')
    need('zset', prefix .. 'held')
    redis.call('ZREM', prefix .. 'leases:' .. worker, id)
    failed(id, 'put_off', failure)
    redis.call('HSET', job_key(id), 'tries', number(field(id, 'tries')) + spent)
    redis.call('HSETNX', job_key(id), 'waiting_since', now)
    -- The lease stays written, so that a repeat of this call is known as one.
    redis.call('HSET', job_key(id), 'state', 'waiting', 'changed_at', now, 'due_at', now + delay, 'starts', 0)
    redis.call('ZADD', prefix .. 'waiting', now + delay, id)
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

-- forward: most jobs, a time in milliseconds or +inf. Makes due now what was put off up to then for the advisory
-- store's sake, the longest first, and waits since for nothing else. Answers how many.
function operations.forward()
  local most, before, moved, held = number_arg(), arg(), 0, prefix .. 'held'
  need('zset', held)
  need('zset', prefix .. 'waiting')
  local found = redis.call('ZRANGEBYSCORE', held, '-inf', before, 'WITHSCORES', 'LIMIT', 0, most + MOST_MEMBERS)
  for index = 1, #found, 2 do
    if moved == most then
      break
    end
    local id = found[index]
    local told = fields(id, 'state', 'changed_at', 'due_at') or {}
    redis.call('ZREM', held, id)
    if told[1] == 'waiting' and number(told[2]) == tonumber(found[index + 1]) and number(told[3]) > now then
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
  need_record(id)
  local state = redis.call('HGET', job_key(id), 'state') or 'unknown'
  if state == 'running' and holds(id, worker, token) then
    need('zset', prefix .. 'leases:' .. worker)
    need('zset', prefix .. 'dead')
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
  need_record(id)
  need('zset', prefix .. 'leases:' .. worker)
  need_to_lapse()
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
  need('zset', prefix .. 'workers')
  redis.call('ZADD', prefix .. 'workers', now + lease_ms, worker)
  -- It lives, whatever else is damaged; what it does not know of can wait.
  need('zset', prefix .. 'leases:' .. worker)
  need_to_lapse()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases:' .. worker, 0, now - stale_ms)) do
    if not working[id] and spec_of(id) then
      local crashed = number(field(id, 'claims')) >= max_claims
      if not crashed then
        redis.call('HSET', job_key(id), 'starts', starts(id) - 1)
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
  need('zset', prefix .. 'workers')
  need('zset', prefix .. 'leases:' .. worker)
  need_to_lapse()
  local leased = redis.call('ZRANGE', prefix .. 'leases:' .. worker, 0, -1)
  for _, id in ipairs(leased) do
    lapse(id, worker, starts(id) >= max_starts, code_version)
  end
  if redis.call('EXISTS', prefix .. 'leases:' .. worker) == 0 then
    redis.call('ZREM', prefix .. 'workers', worker)
  end
  return #leased
end

-- ring: ids. Bells that were taken and will not be answered; jobs that moved on are left alone.
function operations.ring()
  for _, queue in ipairs(QUEUES) do
    need_queue(queue)
  end
  while cursor < #ARGV do
    local id = arg()
    if field(id, 'state') == 'accepted' and spec_of(id) then
      ring_again(id)
    end
  end
end

-- keep_raw: item, queue, reason, detail.
local function keep_raw(item, queue, reason, detail)
  local id = string.format('%d-%d', now, next_number(prefix .. 'letters'))
  redis.call('HSET', prefix .. 'raw:' .. id, 'item', item, 'queue', queue, 'reason', reason, 'detail', detail,
    'size', #item, 'kept_at', now, 'state', 'dead')
  redis.call('ZADD', prefix .. 'raw', now, id)
  mirror_one()
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
  return bell(first.task, ids, first.message_id, told_of(first.task, ids, first.run_id, first.request_id))
end

-- take: most messages, whether to join bells (1 or 0), queues. Pops from each queue in turn. A bell that we rang
-- is answered as {queue, item}; anything else is kept among the dead letters in this very step and answered as
-- {queue, '', reason, id}. With all queues empty the answer is {}. A bell whose answer is lost counts as lost,
-- and is rung again; so does one for a task that only another version knows, by the reconciler of that version,
-- and one for a job whose record is damaged, once it is whole again.
function operations.take()
  local most, joining, queues, share, found = number_arg(), arg() == '1', {}, {}, {}
  while cursor < #ARGV do
    local queue = arg()
    -- A queue that is none must not keep the worker from the others.
    local length = redis.pcall('LLEN', queue)
    if type(length) == 'number' then
      table.insert(queues, queue)
      -- What waits is spread over all the messages that may be taken.
      share[queue] = joining and math.ceil(length / most) or 1
    end
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
        elseif reason ~= 'not_now' then
          if not is_well('zset', prefix .. 'raw') then
            -- It cannot be kept elsewhere, so it goes back, and what lies behind it waits.
            redis.call('RPUSH', queue, item)
            if #found > 0 then
              return found
            end
            need('zset', prefix .. 'raw')
          end
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
-- Rings for the jobs of silent workers, the ones due, and those with lost bells. Answers how many, then the keys
-- that are damaged; what does not need those is done all the same. A time further ahead than any that we write was
-- written before the server's clock was set back; it counts as past, or its job would wait for the clock to catch
-- up.
function operations.reconcile()
  local batch, grace, max_starts, code_version = number_arg(), number_arg(), number_arg(), arg()
  local broken, well = {}, {}
  local function usable(wanted, key)
    if well[key] == nil then
      well[key] = is_well(wanted, key)
      if not well[key] then
        table.insert(broken, key)
      end
    end
    return well[key]
  end
  local common = usable('zset', prefix .. 'dead')
  -- Whether a job can be rung for now. One that has ended and lies in an index all the same is doctor's to name.
  local function ringable(id)
    local told = fields(id, 'task', 'state') or {}
    local spec, state = TASKS[told[1] or ''], told[2]
    return common and spec ~= nil and (state == 'accepted' or state == 'running' or state == 'waiting')
      and usable('zset', prefix .. 'rung:' .. spec.queue)
      and usable('list', spec.queue)
  end
  if usable('zset', prefix .. 'workers') then
    for _, worker in ipairs(past('workers', batch, function() return true end)) do
      local leases = prefix .. 'leases:' .. worker
      if usable('zset', leases) then
        for _, id in ipairs(first_of(leases, '-inf', '+inf', batch, ringable)) do
          lapse(id, worker, starts(id) >= max_starts, code_version)
        end
        if redis.call('EXISTS', leases) == 0 then
          redis.call('ZREM', prefix .. 'workers', worker)
        end
      end
    end
  end
  if usable('zset', prefix .. 'waiting') then
    for _, id in ipairs(past('waiting', batch, ringable)) do
      redis.call('ZREM', prefix .. 'waiting', id)
      ring_again(id)
    end
  end
  for _, queue in ipairs(QUEUES) do
    local bells = prefix .. 'rung:' .. queue
    if usable('zset', bells) and usable('list', queue) then
      -- With messages still queued, only a bell that a younger one has overtaken is lost; a long backlog
      -- must not be rung twice. With none queued, every bell old enough is.
      local before = now - grace
      if redis.call('LLEN', queue) > 0 then
        local youngest = watermark(queue)
        if youngest > now then
          youngest = 0
          redis.call('DEL', prefix .. 'answered:' .. queue)
        end
        before = math.min(before, youngest - 1)
      end
      for _, range in ipairs({{0, before}, {'(' .. now, '+inf'}}) do
        for _, id in ipairs(first_of(bells, range[1], range[2], batch, ringable)) do
          ring_again(id)
        end
      end
    end
  end
  return {#ready, unpack(broken)}
end

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
  redis.call('HDEL', job_key(id), 'waiting_since', 'starts', 'claims', 'tries')
  history(job_key(id), {what = 'replayed', by = by, why = why})
  redis.call('HSET', prefix .. 'subjects', subject_of(id), id)
  ring_again(id)
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

-- Every queue that jobs may lie on, those of other versions among them.
local function all_queues()
  local found, seen = {}, {}
  for _, queue in ipairs(QUEUES) do
    table.insert(found, queue)
    seen[queue] = true
  end
  if is_well('set', prefix .. 'queues') then
    for _, queue in ipairs(redis.call('SMEMBERS', prefix .. 'queues')) do
      if not seen[queue] then
        table.insert(found, queue)
      end
    end
  end
  return found
end

local function lies_in(index, id)
  local score = redis.pcall('ZSCORE', prefix .. index, id)
  return type(score) == 'string' or type(score) == 'number'
end

-- The indexes that a record's state allows its id to lie in; nil when it must lie nowhere.
local function homes_of(id, state)
  if state == 'accepted' then
    local spec, homes = spec_of(id), {}
    for _, queue in ipairs(spec and {spec.queue} or all_queues()) do
      table.insert(homes, 'rung:' .. queue)
    end
    return homes
  elseif state == 'running' then
    return {'leases:' .. (string.match(field(id, 'lease'), '^(.*)|') or '')}
  elseif state == 'waiting' or state == 'dead' or state == 'discarded' then
    return {state}
  end
end

-- Fields that must be whole numbers where they stand.
local NUMBERS = {'starts', 'claims', 'tries', 'accepted_at', 'changed_at', 'due_at', 'waiting_since',
  'first_failed_at', 'last_failed_at'}

-- The first field of a record that cannot be read; nil when all can.
local function unreadable_field(id)
  for position, value in ipairs(fields(id, unpack(NUMBERS))) do
    if value and not string.match(value, '^-?%d+$') then
      return NUMBERS[position]
    end
  end
  for _, name in ipairs({'history', 'failure', 'result'}) do
    local value = redis.call('HGET', job_key(id), name)
    if value and not pcall(cjson.decode, value) then
      return name
    end
  end
end

local function fault_of(id)
  local is = redis.call('TYPE', job_key(id)).ok
  if is ~= 'hash' and is ~= 'none' then
    return 'has a ' .. is .. ' in place of its record'
  end
  local state = redis.call('HGET', job_key(id), 'state')
  if not state then
    return 'has no record'
  end
  local unreadable = unreadable_field(id)
  if unreadable then
    return 'has an unreadable field: ' .. unreadable
  end
  local homes, home = homes_of(id, state), nil
  for _, index in ipairs(homes or {}) do
    home = home or (lies_in(index, id) and index)
  end
  if homes and not home then
    return 'is ' .. state .. ' and not in ' .. prefix .. homes[1]
  end
  local indexes = {'waiting', 'dead', 'discarded'}
  for _, queue in ipairs(all_queues()) do
    table.insert(indexes, 'rung:' .. queue)
  end
  for _, index in ipairs(indexes) do
    if index ~= home and lies_in(index, id) then
      return 'is ' .. state .. ' and also in ' .. prefix .. index
    end
  end
  if home and state ~= 'discarded' and not spec_of(id) then
    return 'is ' .. state .. ', and of a task that only another version knows'
  end
  return ''
end

-- check: ids. Answers for each its state, or none, then a space and what is wrong with it, if anything is.
function operations.check()
  local faults = {}
  for index = 2, #ARGV do
    local state = field(ARGV[index], 'state')
    faults[index - 1] = (state ~= '' and state or 'none') .. ' ' .. fault_of(ARGV[index])
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
  local key, state = job_key(id), field(id, 'state')
  state = state ~= '' and state or nil
  local unreadable = state and unreadable_field(id)
  local spec = spec_of(id)
  if state and state ~= 'dead' and state ~= 'discarded' and state ~= 'done' and not spec then
    return 'of another version'
  end
  need_to_lapse()
  need('zset', prefix .. 'waiting')
  need('zset', prefix .. 'discarded')
  local indexes = {'waiting', 'dead', 'discarded'}
  for _, queue in ipairs(all_queues()) do
    table.insert(indexes, 'rung:' .. queue)
  end
  while cursor < #ARGV do
    table.insert(indexes, 'leases:' .. arg())
  end
  for _, index in ipairs(indexes) do
    need('zset', prefix .. index)
  end
  if unreadable then
    -- What it said nobody can tell; without it the job is as good as new.
    redis.call(unreadable == 'changed_at' and 'HSET' or 'HDEL', key, unreadable,
      unreadable == 'changed_at' and now or nil)
  end
  if not is_well('hash', key) then
    redis.call('DEL', key) -- what lies there is no record, and nobody can tell whose it was
  end
  if lies_in('dead', id) then
    unmirror_one()
  end
  for _, index in ipairs(indexes) do
    redis.call('ZREM', prefix .. index, id)
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
      mirror_one()
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
  for _, index in ipairs({'dead', 'discarded', 'waiting', 'workers', 'raw'}) do
    need('zset', prefix .. index)
  end
  need('hash', prefix .. 'counts')
  local counts = redis.call('HMGET', prefix .. 'counts', 'accepted', 'done')
  local running, ringing, lengths = 0, 0, {}
  for _, worker in ipairs(redis.call('ZRANGE', prefix .. 'workers', 0, -1)) do
    need('zset', prefix .. 'leases:' .. worker)
    running = running + redis.call('ZCARD', prefix .. 'leases:' .. worker)
  end
  for _, queue in ipairs(all_queues()) do
    need('zset', prefix .. 'rung:' .. queue)
    ringing = ringing + redis.call('ZCARD', prefix .. 'rung:' .. queue)
  end
  for index, queue in ipairs(QUEUES) do
    need('list', queue)
    lengths[index] = redis.call('LLEN', queue)
  end
  need('list', mirror)
  return {number(counts[1]), number(counts[2]), redis.call('ZCARD', prefix .. 'dead'),
    redis.call('ZCARD', prefix .. 'discarded'), redis.call('ZCARD', prefix .. 'waiting'), running, ringing,
    redis.call('ZCARD', prefix .. 'raw'), redis.call('LLEN', mirror), unpack(lengths)}
end

-- queues. Answers every queue that jobs may lie on, those of other versions among them.
function operations.queues()
  return all_queues()
end

local answer = operations[ARGV[1]]()
ring_out()
if accepted > 0 then
  redis.call('HINCRBY', prefix .. 'counts', 'accepted', accepted)
end
return answer
