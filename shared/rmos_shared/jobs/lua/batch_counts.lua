-- What the jobs of a batch come to, counted in the step that settles them: so no repeat of a step counts twice. A batch
-- whose key is damaged or gone must not keep its jobs from their ends, so every write to it may fail, and is passed over.

local function batch_key(id)
  return prefix .. 'batch:' .. id
end

local function add_to_batch(id, name, amount)
  if amount ~= 0 then
    redis.pcall('HINCRBY', batch_key(id), name, string.format('%d', amount))
  end
end

local function decoded(text)
  local readable, value = pcall(cjson.decode, text or 'null')
  return readable and type(value) == 'table' and value or {}
end

-- A job that has no end any more, for it is ready again: its batch counts it as pending.
local function uncount_end(id)
  local record = fields(id, 'counted', 'batch') or {}
  if record[1] then
    add_to_batch(record[2] or '', record[1], -1)
    redis.call('HDEL', job_key(id), 'counted')
  end
end

-- A run's job may end more than once, dead and then done: it counts where it ended last.
local function count_end(batch, id, state)
  uncount_end(id)
  add_to_batch(batch, state, 1)
  redis.call('HSET', job_key(id), 'counted', state)
  redis.pcall('HSET', batch_key(batch), 'changed_at', now)
end

-- Nothing more happens in the batch. Who gave up its plan or its report, by discarding that job, has cancelled it.
local function close_batch(batch, given_up, report)
  local key = batch_key(batch)
  local cancelled = given_up or redis.pcall('HGET', key, 'state') == 'cancelling'
  redis.pcall('HSET', key, 'state', cancelled and 'cancelled' or 'done', 'ended_at', now)
  if type(report.key) == 'string' and type(report.sha256) == 'string' then
    redis.pcall('HSET', key, 'report_key', report.key, 'report_sha256', report.sha256)
  end
  redis.pcall('SREM', prefix .. 'batches_open', batch)
end

local function end_in_batch(batch, id, task, state, result)
  if task == REEXPLAIN then
    count_end(batch, id, state)
    if state == 'done' and decoded(result).outcome == 'created' then
      add_to_batch(batch, 'linked', 1)
    end
  elseif state == 'discarded' then
    close_batch(batch, true, {})
  elseif state == 'done' and task == REPORT then
    close_batch(batch, false, decoded(result))
  end
end

-- Adds up what a page came to, and says whether its jobs are wanted: a batch that was paused or cancelled meanwhile takes
-- none, and goes on with a page from the same place.
local function take_page(batch, result)
  local key, page = batch_key(batch), decoded(result)
  add_to_batch(batch, 'pages', 1)
  if redis.pcall('HGET', key, 'state') ~= 'running' then
    return false
  end
  for name, amount in pairs(type(page.counts) == 'table' and page.counts or {}) do
    add_to_batch(batch, name, number(amount))
  end
  if type(page.place) == 'string' then
    redis.pcall('HSET', key, 'place', page.place)
  end
  redis.pcall('HSET', key, 'planned', page.planned == true and 1 or 0, 'next_at', now + number(page.pause_ms),
    'changed_at', now, 'engine_id', page.engine_id or '', 'engine_version', page.engine_version or '')
  return true
end
