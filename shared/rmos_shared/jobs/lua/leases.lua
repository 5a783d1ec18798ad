-- Leases that end without a settlement, and the indexes of times.

-- What the lapse of any job may write.
local function need_to_lapse()
  for _, queue in ipairs(QUEUES) do
    need('zset', ready_key(queue))
  end
  need('zset', prefix .. 'dead')
  need_to_end()
end

-- A job that lost its worker: ready again, or dead when that has happened too often.
local function lapse(id, worker, exhausted, code_version)
  local spec = spec_of(id)
  if not spec then
    return false
  end
  redis.call('ZREM', prefix .. 'leases:' .. worker, id)
  if exhausted then
    local record = fields(id, 'crash_count', 'claim_count')
    die(id, cjson.encode({reason = 'crash_loop', error_type = 'WorkerLost', traceback = '',
      message = number(record[1]) .. ' crashes in ' .. number(record[2]) .. ' claims; last worker: '
        .. worker}), code_version)
  else
    ready_again(id)
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

-- What is of a wrong type is begun anew, for a worker must beat whatever is damaged.
local function note_beat(worker)
  if type(redis.pcall('ZADD', prefix .. 'beats', now, worker)) ~= 'number' then
    redis.call('DEL', prefix .. 'beats')
    redis.call('ZADD', prefix .. 'beats', now, worker)
  end
end

local function forget_worker(worker)
  redis.call('ZREM', prefix .. 'workers', worker)
  redis.pcall('ZREM', prefix .. 'beats', worker)
end

-- give_back: worker, token, id, most crashes, code version. The worker is ending, and that counts as a crash.
-- Answers the state afterwards.
function operations.give_back()
  local worker, token, id, max_crashes, code_version = arg(), arg(), arg(), number_arg(), arg()
  need_record(id)
  need('zset', prefix .. 'leases:' .. worker)
  need_to_lapse()
  if field(id, 'state') == 'running' and holds(id, worker, token) then
    lapse(id, worker, crash_count(id) >= max_crashes, code_version)
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
  note_beat(worker)
  -- It lives, whatever else is damaged; what it does not know of can wait.
  need('zset', prefix .. 'leases:' .. worker)
  need_to_lapse()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases:' .. worker, 0, now - stale_ms)) do
    if not working[id] and spec_of(id) then
      local crashed = number(field(id, 'claim_count')) >= max_claims
      if not crashed then
        redis.call('HSET', job_key(id), 'crash_count', crash_count(id) - 1)
      end
      lapse(id, worker, crashed, code_version)
      lapsed = lapsed + 1
    end
  end
  return lapsed
end

-- retire: worker, most crashes, code version. Its leases end at once. Answers how many did.
function operations.retire()
  local worker, max_crashes, code_version = arg(), number_arg(), arg()
  need('zset', prefix .. 'workers')
  need('zset', prefix .. 'leases:' .. worker)
  need_to_lapse()
  local leased = redis.call('ZRANGE', prefix .. 'leases:' .. worker, 0, -1)
  for _, id in ipairs(leased) do
    lapse(id, worker, crash_count(id) >= max_crashes, code_version)
  end
  if redis.call('EXISTS', prefix .. 'leases:' .. worker) == 0 then
    forget_worker(worker)
  end
  return #leased
end
