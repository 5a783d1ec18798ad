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
  if task == SEAL then
    end_of_seal(state, result)
  end
  if batch then
    end_in_batch(batch, id, task, state, result)
  end
end

-- Keys beside those of the job itself that its end may write, and their types: the feed, and what webhooks need.
local function keys_of_an_end()
  local keys, is = unsealed_keys(), redis.call('TYPE', prefix .. 'webhooks').ok
  has_endpoints = is == 'hash'
  if is ~= 'none' then
    for _, key in ipairs({{'hash', 'webhooks'}, {'zset', 'ready:' .. DELIVERIES}, {'hash', 'subjects'}, {'hash', 'counts'}}) do
      table.insert(keys, {key[1], prefix .. key[2]})
    end
  end
  return keys
end

-- Makes sure of all that the end of any job may write.
local function need_to_end()
  for _, key in ipairs(keys_of_an_end()) do
    need(key[1], key[2])
  end
end
