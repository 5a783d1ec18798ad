-- Webhook endpoints, and the deliveries to them.

local function wants(events, event)
  return string.find(' ' .. events .. ' ', ' ' .. event .. ' ', 1, true) ~= nil
end

-- A JSON text of a value that may be missing.
local function json_of(value)
  return value and value ~= '' and cjson.encode(value) or 'null'
end

-- The payload of a delivery: ids and outcome, never the payload of the job that ended.
local function delivery(endpoint, event, id, state, record)
  local readable, failure = pcall(cjson.decode, state == 'dead' and record[5] or 'null')
  failure = readable and type(failure) == 'table' and failure or {}
  return '{"endpoint":' .. cjson.encode(endpoint) .. ',"event":' .. cjson.encode(event) .. ',"at_ms":'
    .. string.format('%d', now) .. ',"job_id":' .. cjson.encode(id) .. ',"task":' .. json_of(record[1]) .. ',"state":'
    .. cjson.encode(state) .. ',"run_id":' .. json_of(record[2]) .. ',"request_id":' .. json_of(record[3])
    -- As it is: an empty list would not survive decoding.
    .. ',"result":' .. (state == 'done' and record[4] or 'null') .. ',"reason":' .. json_of(failure.reason)
    .. ',"error_type":' .. json_of(failure.error_type) .. '}'
end

-- A job may end more than once, dead and then done; each end has a delivery of its own.
local function delivery_id(id, endpoint)
  local at = now
  local function name()
    return id .. '.hook-' .. endpoint .. '.' .. string.format('%d', at)
  end
  while redis.call('EXISTS', job_key(name())) == 1 do
    at = at + 1
  end
  return name()
end

-- Accepts the deliveries of what this operation has ended. A job of a task without an event, such as a delivery
-- itself, is told to nobody.
local function accept_deliveries()
  if #ended == 0 or not has_endpoints then
    return
  end
  local endpoints = redis.call('HGETALL', prefix .. 'webhooks')
  for _, job in ipairs(ended) do
    local id, state = job[1], job[2]
    local record = fields(id, 'task', 'run_id', 'request_id', 'result', 'failure', 'traceparent') or {}
    local spec = TASKS[record[1] or '']
    if spec and spec.event ~= '' then
      local event = state == 'done' and spec.event or 'job.' .. state
      for index = 1, #endpoints, 2 do
        if wants(endpoints[index + 1], event) then
          local delivery_job = delivery_id(id, endpoints[index])
          write_job(delivery_job, DELIVERY, delivery(endpoints[index], event, id, state, record), '', record[2] or '',
            record[3] or '')
          keep_traceparent(delivery_job, record[6] or '')
        end
      end
    end
  end
  write_subjects()
end

-- configure_endpoints: number of endpoints, then for each: id, events (separated by spaces), enabled (1 or 0). Those are
-- all from now on. One that was disabled for another reason than its settings stays so.
function operations.configure_endpoints()
  need('hash', prefix .. 'webhooks')
  need('hash', prefix .. 'webhooks_off')
  local kept = {}
  for _ = 1, number_arg() do
    local id, events, enabled = arg(), arg(), arg() == '1'
    local off = redis.call('HGET', prefix .. 'webhooks_off', id)
    local readable, told = pcall(cjson.decode, off or 'null')
    told = readable and type(told) == 'table' and told or {}
    kept[id] = true
    if enabled and (not off or told.reason == 'configured') then
      redis.call('HDEL', prefix .. 'webhooks_off', id)
      redis.call('HSET', prefix .. 'webhooks', id, events)
    else
      redis.call('HDEL', prefix .. 'webhooks', id)
      redis.call('HSET', prefix .. 'webhooks_off', id, cjson.encode({events = events,
        reason = enabled and told.reason or 'configured', at = off and told.at or now}))
    end
  end
  for _, key in ipairs({'webhooks', 'webhooks_off'}) do
    for _, id in ipairs(redis.call('HKEYS', prefix .. key)) do
      if not kept[id] then
        redis.call('HDEL', prefix .. key, id)
      end
    end
  end
end

-- disable_endpoint: id, reason. Answers 1 when it was enabled.
function operations.disable_endpoint()
  local id, reason = arg(), arg()
  need('hash', prefix .. 'webhooks')
  need('hash', prefix .. 'webhooks_off')
  local events = redis.call('HGET', prefix .. 'webhooks', id)
  if not events then
    return 0
  end
  redis.call('HDEL', prefix .. 'webhooks', id)
  redis.call('HSET', prefix .. 'webhooks_off', id, cjson.encode({events = events, reason = reason, at = now}))
  return 1
end

-- enable_endpoint: id. Answers enabled, or why not: configured (as disabled), unknown.
function operations.enable_endpoint()
  local id = arg()
  need('hash', prefix .. 'webhooks')
  need('hash', prefix .. 'webhooks_off')
  if redis.call('HEXISTS', prefix .. 'webhooks', id) == 1 then
    return 'enabled'
  end
  local off = redis.call('HGET', prefix .. 'webhooks_off', id)
  local readable, told = pcall(cjson.decode, off or 'null')
  if not off or not readable or type(told) ~= 'table' or type(told.events) ~= 'string' then
    return 'unknown'
  elseif told.reason == 'configured' then
    return 'configured'
  end
  redis.call('HDEL', prefix .. 'webhooks_off', id)
  redis.call('HSET', prefix .. 'webhooks', id, told.events)
  return 'enabled'
end
