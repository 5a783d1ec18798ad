-- Jobs that end, for the webhooks that tell of it. The deliveries are jobs themselves, and are accepted in the step
-- that ends the job: endpoints.lua.

-- {id, state} of jobs that this operation ends.
local ended = {}
-- Whether any endpoint wants to hear; nil until need_to_end has asked.
local has_endpoints

-- Who has the record at hand gives its task, batch (false without one) and result.
local function add_end(state, id, task, batch, result)
  table.insert(ended, {id, state})
  if not task then
    local record = fields(id, 'task', 'batch') or {}
    task, batch = record[1], record[2]
  end
  if batch then
    end_in_batch(batch, id, task, state, result)
  end
end

-- Keys beside those of the job itself that its end may write, and their types. Without endpoints there are none.
local function keys_of_an_end()
  local is = redis.call('TYPE', prefix .. 'webhooks').ok
  has_endpoints = is == 'hash'
  if is == 'none' then
    return {}
  end
  return {{'hash', prefix .. 'webhooks'}, {'zset', prefix .. 'ready:' .. DELIVERIES}, {'hash', prefix .. 'subjects'},
    {'hash', prefix .. 'counts'}}
end

-- Makes sure of all that the end of any job may write.
local function need_to_end()
  for _, key in ipairs(keys_of_an_end()) do
    need(key[1], key[2])
  end
end
