-- The feed of the audit log: what was published, and what operators did, until a seal of the log holds it.

-- Publications of this operation: JSON lists, one after the other, and how many. They are written when it ends.
local publications, published = {}, 0
-- {act, what} of this operation.
local act_news = {}

-- What the ledger's record of the audit log is read for; what else another program put there is passed by.
local SEAL_FIELDS = {'number', 'since', 'size', 'root', 'at', 'next', 'signed_by', 'checkpoint', 'seals', 'late',
  'unintroduced', 'reconciled_at', 'whole_at'}
-- The first id of the feed whose time is no time: the year 10000 begins there.
local FIRST_TIMELESS = 253402300800000

local function unsealed_keys()
  return {{'stream', prefix .. 'unsealed'}, {'hash', prefix .. 'seals'}}
end

-- Makes sure of the feed: what is not told there is not done.
local function need_unsealed()
  for _, key in ipairs(unsealed_keys()) do
    need(key[1], key[2])
  end
end

-- ``text``: JSON lists [key, sha256, size, outcome], commas between.
local function add_publications(text, amount)
  if amount > 0 then
    table.insert(publications, text)
    published = published + amount
  end
end

local function add_act_news(id, what)
  table.insert(act_news, {id, what})
end

-- As HINCRBY; what is no number is begun anew.
local function add_to_seals(name, amount)
  local sum = redis.pcall('HINCRBY', prefix .. 'seals', name, string.format('%d', amount))
  if type(sum) ~= 'number' then
    redis.call('HSET', prefix .. 'seals', name, string.format('%d', amount))
    sum = amount
  end
  return sum
end

local function add_to_feed(amount, ...)
  local key, total = prefix .. 'unsealed', add_to_seals('told', amount)
  if type(redis.pcall('XADD', key, '*', 'n', amount, 'total', total, ...)) ~= 'string' then
    -- A stream whose last id is the greatest possible takes no more. What it held is found in the store.
    redis.call('DEL', key)
    redis.call('XADD', key, '*', 'n', amount, 'total', total, ...)
  end
end

local function write_unsealed()
  if published > 0 then
    add_to_feed(published, 'p', '[' .. table.concat(publications, ',') .. ']')
  end
  for _, news in ipairs(act_news) do
    add_to_feed(1, 'act', news[1], 'what', news[2])
  end
end

-- The id after which nothing is left of what a seal took; nil for what is no id of an entry.
local function id_after(text)
  local moment, place = string.match(type(text) == 'string' and text or '', '^(%d+)%-(%d+)$')
  return moment and moment .. '-' .. string.format('%d', tonumber(place) + 1)
end

-- A seal job has ended. Done, it tells what the log has come to, and the feed lets go of what the log holds; given up, it
-- makes way for the next one.
local function end_of_seal(state, result)
  local key = prefix .. 'seals'
  if state == 'dead' then
    return
  end
  add_to_seals('number', 1)
  local seal = state == 'done' and decoded(result) or {}
  for _, name in ipairs({'size', 'root', 'at', 'next', 'feed', 'signed_by', 'checkpoint', 'reconciled_at',
    'whole_at'}) do
    local value = seal[name]
    if type(value) == 'string' or type(value) == 'number' then
      redis.call('HSET', key, name, type(value) == 'number' and string.format('%d', value) or tostring(value))
    end
  end
  for _, name in ipairs({'seals', 'late', 'unintroduced'}) do
    if type(seal[name]) == 'number' then
      add_to_seals(name, seal[name])
    end
  end
  local after = id_after(seal.feed)
  if after then
    redis.call('XTRIM', prefix .. 'unsealed', 'MINID', after)
  end
end

-- publish: JSON lists, their number. For what is published where no job is.
function operations.publish()
  local text, amount = arg(), number_arg()
  need_unsealed()
  add_publications(text, amount)
end

local function moment_of(id)
  return string.match(id, '^(%d+)')
end

-- sealing: whether to begin the record of seals (1 or 0). Answers the time, how much is not sealed, the times of the oldest
-- and of the newest or '', and the fields of that record. What is begun begins now: the numbers of the jobs too, so that
-- none of a record that was lost comes again.
function operations.sealing()
  local begin = arg() == '1'
  need_unsealed()
  local stream, key = prefix .. 'unsealed', prefix .. 'seals'
  if begin and redis.call('HEXISTS', key, 'number') == 0 then
    redis.call('HSET', key, 'number', now, 'since', now)
  end
  local amount, oldest, newest = 0, '', ''
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if first then
    local names = {}
    for index = 1, #first[2], 2 do
      names[first[2][index]] = first[2][index + 1]
    end
    amount = math.max(1, number(redis.call('HGET', key, 'told')) - number(names.total) + number(names.n))
    oldest = moment_of(first[1])
    newest = moment_of(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1][1])
  end
  local answered = {now, amount, oldest, newest}
  for _, name in ipairs(SEAL_FIELDS) do
    local value = redis.call('HGET', key, name)
    if value then
      table.insert(answered, name)
      table.insert(answered, value)
    end
  end
  return answered
end

-- Entries whose ids tell no time get new ones, of now: one id of another program's is enough, for all that come later are
-- greater. A stream goes on from its last id, so it is written anew. Says whether there were any.
local function take_timeless_ids()
  local stream, draft, after = prefix .. 'unsealed', prefix .. 'unsealed:repaired', '-'
  if not redis.call('XRANGE', stream, string.format('%.0f', FIRST_TIMELESS), '+', 'COUNT', 1)[1] then
    return false
  end
  redis.call('DEL', draft)
  repeat
    local entries = redis.call('XRANGE', stream, after, '+', 'COUNT', MOST_MEMBERS)
    for _, entry in ipairs(entries) do
      local id, told = entry[1], entry[2]
      after = '(' .. id
      -- Ours have a handful of fields.
      if #told <= MOST_MEMBERS then
        redis.call('XADD', draft, tonumber(moment_of(id)) < FIRST_TIMELESS and id or '*', unpack(told))
      end
    end
  until #entries == 0
  redis.call('DEL', stream)
  if redis.call('EXISTS', draft) == 1 then
    redis.call('RENAME', draft, stream)
  end
  return true
end

-- repair_seals: names and values, in turn. Takes away those fields of the record of seals that still hold that value.
function operations.repair_seals()
  local key, gone = prefix .. 'seals', {}
  need_unsealed()
  for _ = 1, (#ARGV - 1) / 2 do
    local name, value = arg(), arg()
    if redis.call('HGET', key, name) == value then
      redis.call('HDEL', key, name)
      table.insert(gone, key .. ' ' .. name)
    end
  end
  return gone
end

-- repair_unsealed: takes away what is no feed, and ids in it that tell no time. Answers what. What a key held is found in
-- the store, as late.
function operations.repair_unsealed()
  local gone = {}
  for _, key in ipairs(unsealed_keys()) do
    if not is_well(key[1], key[2]) then
      redis.call('DEL', key[2])
      table.insert(gone, key[2])
    end
  end
  if take_timeless_ids() then
    table.insert(gone, prefix .. 'unsealed ids')
  end
  return gone
end
