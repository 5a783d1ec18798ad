-- The job ledger: every transition of a job is one run of this script, so it happens whole or not at all.
-- All times are the server's, in milliseconds since 1970. Every operation may be repeated safely.
--
-- Put before it by script.py: TASKS, by name: queue, topic, ids_per_notification, event; QUEUES, their names in order;
-- DELIVERY and DELIVERIES, the task and the queue of webhook deliveries; PLAN, REEXPLAIN and REPORT, the tasks of batches;
-- SEAL, that of the audit log.
-- KEYS[1]  prefix, "rmos:" outside tests. Keys below it:
--   job:<id>         hash  the record: task state run_id request_id traceparent batch sha256 accepted_at changed_at
--                          crash_count claim_count retry_count take_count lease due_at waiting_since result failure
--                          first_failed_at last_failed_at code_version history act counted; history: a JSON list of
--                          what happened beside the normal way, the last MOST_HISTORY of it; act: of an operator, the
--                          last on it; counted: the end that its batch counts it by
--   payload:<id>     str   until the job is done; by itself, so that the small record stays in its compact form
--   ready:<queue>    zset  accepted jobs that nobody has come for, in order: by the time they became ready, in
--                          microseconds
--   taken            zset  accepted jobs whose notification is on its way to a worker, by the time it was taken
--   wake:<queue>     list  tokens that wake workers waiting for the queue; losing them costs a second
--   queues           set   every queue that any version has had ready jobs on
--   leases:<worker>  zset  running jobs by the time they were claimed
--   waiting          zset  jobs put off, by due time
--   held             zset  jobs put off for the advisory store's sake, by when; some may have moved on since
--   dead, discarded  zset  by the time they became so
--   counts           hash  accepted, done: they only grow
--   once:<digest>    hash  what was accepted under an Idempotency-Key: body (its hash), receipt (JSON); expires
--   subjects         hash  "<topic>:<run id>" -> the latest job on it that is not done
--   ended:<topic>:<run id>  str  the last job on it that is done or discarded, for as long as its record stays
--   workers          zset  worker instances by the time from which they count as silent
--   beats            zset  worker instances by their last heartbeat, for status alone; nothing rests on it
--   raw:<id>         hash  a message that is no notification of ours: item queue reason detail kept_at size
--   raw, raw_discarded  zset  by time
--   letters          str   raw letters so far, which makes their ids unique
--   batch:<id>       hash  a batch of re-explanations: spec (JSON) state created_at changed_at ended_at pages place planned
--                          next_at engine_id engine_version report_key report_sha256 history, and its counts: looked_at
--                          not_meant explained under_way corrupt jobs done linked dead discarded
--   batches          zset  every batch, by the time it was opened
--   batches_open     set   those that have not ended
--   scheduled        hash  entry of the schedule -> when it was due whose batch was opened last, in milliseconds
--   events           stream  changes of state, the last of them: an entry holds a state and the jobs that came to it, one
--                          a line: id, task, run id, request id, separated by tabs. A line without an id and a task
--                          is of a run that something happened to without a job (state: attached, reviewed). Jobs
--                          that are in line once more have entries of their own, with the field "again"
--   webhooks         hash  endpoint -> the events that it wants, separated by spaces; what the settings say and nobody
--                          disabled. No key: no webhooks, and no cost
--   pauses           hash  queue:<name>, task:<name> or schedule -> JSON of who paused it: by, why, at, act
--   place:<queue>    str   up to here all jobs in the line are of paused tasks; expires, and is only for speed
--   acts             zset  ids of operators' acts by time; nothing is ever removed
--   act:<id>         hash  one of them: kind by why origin about found done begun_at step_at, and once it has ended:
--                          outcome refused ended_at
--   webhooks_off     hash  endpoint -> JSON of one that is disabled: events, reason, at
--   unsealed         stream  what the audit log does not hold yet, in the order in which it happened. An entry holds n,
--                          how many it tells of, total, how many were told ever, and either p, a JSON list of
--                          publications [key, sha256, size, c (created) or s (the same was there)], or act and what
--                          (begun, ended). Nothing goes before a checkpoint of the log holds it
--   seals            hash  what the audit log has come to: of the newest seal size root at next feed signed_by checkpoint; how
--                          many, since this record began: seals late unintroduced; when the log was held against the
--                          store: reconciled_at whole_at; told: how much the feed was told ever; number: of the next
--                          seal job; since: when this record began
-- KEYS[2]  the list that mirrors the number of dead letters for Flower's Broker page (its items say nothing)
-- <queue>  the list that mirrors the number of ready jobs, for Flower as well. Other programs may push onto it; what
--          they pushed is kept among the raw letters when its turn comes.
-- ARGV[1]  the operation; the rest are its arguments, described at each.
--
-- A job is in exactly one of ready:*, taken, waiting, leases:*, dead, discarded, or done (counted, its record
-- expires). Its notification is written by take, in the very step that hands it out.
--
-- Other programs, and other versions of this one, may write to the same server. An operation makes sure of the
-- keys that it will write before it writes the first, so that none stops half-way. What is of a wrong type is
-- told as DAMAGED; a record of a task that this version does not know stays where it is, for one that does.

local prefix, mirror = KEYS[1], KEYS[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_us = clock[1] * 1000000 + clock[2]
local cursor = 1
-- Above the longest delay and the longest lease that the settings allow: a day, and some.
local LONGEST_MS = 90000000
-- What stands in a queue's list for a ready job.
local READY_ITEM = 'see rmos jobs list'
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
  local values = redis.pcall('HMGET', job_key(id), ...)
  if values.err then
    return nil
  end
  return values
end

local function field(id, name)
  local values = fields(id, name)
  return values and values[1] or ''
end

-- The record of the one job that an operation is about.
local function need_record(id)
  need('hash', job_key(id))
end

local function number(text)
  return tonumber(text or 0) or 0
end

local function crash_count(id)
  return number(field(id, 'crash_count'))
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

local operations = {}
