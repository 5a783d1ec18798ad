-- What a record tells of itself, the index by run, and the list that mirrors the dead letters.

-- Adds to what a record tells of itself. The same thing again is counted, not written anew.
local function history(key, entry)
  local text = redis.call('HGET', key, 'history')
  local readable, list = pcall(cjson.decode, text or '[]')
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
  local readable, details = pcall(cjson.decode, failure)
  details = readable and type(details) == 'table' and details or {}
  history(job_key(id), {what = what, reason = details.reason, error_type = details.error_type, message = details.message})
  redis.call('HSET', job_key(id), 'failure', failure, 'last_failed_at', now)
  redis.call('HSETNX', job_key(id), 'first_failed_at', now)
end

local function die(id, failure, code_version)
  failed(id, 'died', failure)
  redis.call('HSET', job_key(id), 'state', 'dead', 'changed_at', now, 'code_version', code_version)
  redis.call('ZADD', prefix .. 'dead', now, id)
  mirror_one()
  add_event_of('dead', id)
  add_end('dead', id)
end
