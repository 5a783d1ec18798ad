-- Acts of operators: who did what to how many jobs, why, and how far it got. They are added and never removed.

local function act_key(id)
  return prefix .. 'act:' .. id
end

local function need_act(id)
  need('hash', act_key(id))
end

-- Counts what an act has done, in the very step that did it. An act without a record is a single one over HTTP.
local function count_done(id, amount)
  if amount > 0 and redis.call('EXISTS', act_key(id)) == 1 then
    redis.call('HINCRBY', act_key(id), 'done', amount)
    redis.call('HSET', act_key(id), 'step_at', now)
  end
end

-- Does a step of an act for each job, and answers what became of each. ``one`` answers that, and whether it was done
-- here and now and not by an earlier call of the same step.
local function each_of(ids, act, one)
  local answers, done = {}, 0
  for index, id in ipairs(ids) do
    local answer, moved = one(id)
    answers[index] = answer
    done = done + (moved and 1 or 0)
  end
  count_done(act, done)
  return answers
end

-- begin_act: id, kind, by, why, where it comes from (JSON), what it is about (JSON), number of jobs found.
function operations.begin_act()
  local id, kind, by, why, origin, about, found = arg(), arg(), arg(), arg(), arg(), arg(), number_arg()
  need_act(id)
  need('zset', prefix .. 'acts')
  need_unsealed()
  if redis.call('EXISTS', act_key(id)) == 0 then
    redis.call('HSET', act_key(id), 'kind', kind, 'by', by, 'why', why, 'origin', origin, 'about', about, 'found',
      found, 'done', 0, 'begun_at', now)
    redis.call('ZADD', prefix .. 'acts', now, id)
    add_act_news(id, 'begun')
  end
end

-- end_act: id, outcome, number of jobs that were refused, how many it changed ('': as its steps counted). The first end
-- stands.
function operations.end_act()
  local id, outcome, refused, done = arg(), arg(), number_arg(), arg()
  need_act(id)
  need_unsealed()
  if redis.call('EXISTS', act_key(id)) == 1 and redis.call('HEXISTS', act_key(id), 'ended_at') == 0 then
    redis.call('HSET', act_key(id), 'outcome', outcome, 'refused', refused, 'ended_at', now)
    if done ~= '' then
      redis.call('HSET', act_key(id), 'done', done)
    end
    add_act_news(id, 'ended')
  end
end
