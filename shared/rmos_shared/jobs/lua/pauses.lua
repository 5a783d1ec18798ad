-- What operators have paused: queues, tasks, the schedule. Only taking and bringing forward ask; accepting, claiming
-- and settling go on, and a paused job stays in its line.

-- Jobs of paused tasks that one take passes over, at the most; the next one goes on from there.
local MOST_PASSED = 2000
-- A place in a line is forgotten after that time. Should the server's clock have been set back meanwhile, a job that
-- got in line before it is found then.
local PLACE_SECONDS = 60

-- The subjects that are paused, as the keys of a table; nil when none is. What is damaged pauses nothing and lets
-- nothing run: an operator may have had good reason.
local function read_pauses()
  local key = prefix .. 'pauses'
  local subjects = redis.pcall('HKEYS', key)
  if subjects.err then
    need('hash', key)
  end
  if #subjects == 0 then
    return nil
  end
  local paused = {}
  for _, subject in ipairs(subjects) do
    paused[subject] = true
  end
  return paused
end

local function is_paused(paused, task)
  local spec = TASKS[task]
  return spec and (paused['task:' .. task] or paused['queue:' .. spec.queue])
end

local function has_paused_tasks(paused, queue)
  for name, spec in pairs(TASKS) do
    if spec.queue == queue and paused['task:' .. name] then
      return true
    end
  end
  return false
end

local function place_key(queue)
  return prefix .. 'place:' .. queue
end

-- How many jobs at the head of a line are known to be of paused tasks.
local function passed_before(queue)
  local score = redis.pcall('GET', place_key(queue))
  if type(score) ~= 'string' or not string.match(score, '^%d+$') then
    return 0
  end
  return redis.call('ZCOUNT', ready_key(queue), '-inf', '(' .. score)
end

-- From the head of the line up to this job all are of paused tasks. The job itself is looked at again.
local function remember_place(queue, id)
  local key, score = place_key(queue), redis.call('ZSCORE', ready_key(queue), id)
  if not score or redis.pcall('GET', key) == score then
    return
  end
  -- It ages from when it was first remembered, or it would never be forgotten.
  if redis.call('TTL', key) > 0 then
    redis.call('SET', key, score, 'KEEPTTL')
  else
    redis.call('SET', key, score, 'EX', PLACE_SECONDS)
  end
end

-- pause: act, by, why, subjects (queue:<name>, task:<name>, schedule). Answers paused for each. What is paused already
-- stays so, with who did it and why.
function operations.pause()
  local act, by, why = arg(), arg(), arg()
  local answers, paused, key = {}, 0, prefix .. 'pauses'
  need('hash', key)
  need_act(act)
  while cursor < #ARGV do
    paused = paused + redis.call('HSETNX', key, arg(), cjson.encode({by = by, why = why, at = now, act = act}))
    table.insert(answers, 'paused')
  end
  count_done(act, paused)
  return answers
end

-- resume: act, by, why, subjects. Answers resumed for each, whether it was paused or not. Workers look at once.
function operations.resume()
  local act, _, _ = arg(), arg(), arg()
  local answers, resumed, key = {}, 0, prefix .. 'pauses'
  need('hash', key)
  need_act(act)
  while cursor < #ARGV do
    resumed = resumed + redis.call('HDEL', key, arg())
    table.insert(answers, 'resumed')
  end
  if resumed > 0 then
    for _, queue in ipairs(QUEUES) do
      local length = redis.pcall('ZCARD', ready_key(queue))
      redis.call('DEL', place_key(queue))
      wake(queue, type(length) == 'number' and length or 0)
    end
  end
  count_done(act, resumed)
  return answers
end
