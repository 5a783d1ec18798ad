-- What a worker is measured by: whether there is anything that it could take.

-- Jobs of a line that are looked at while some of its tasks are paused.
local MOST_LOOKED_AT = 100

-- A key of a wrong type pauses nothing.
local function is_paused(what, name)
  return redis.pcall('HEXISTS', prefix .. 'pauses', what .. ':' .. name) == 1
end

-- have_work: queues. Answers 1 when one of them has a job in line that is not paused, else 0. Only reads.
function operations.have_work()
  while cursor < #ARGV do
    local queue = arg()
    if is_well('zset', ready_key(queue)) and not is_paused('queue', queue) then
      for _, id in ipairs(redis.call('ZRANGE', ready_key(queue), 0, MOST_LOOKED_AT - 1)) do
        if not is_paused('task', field(id, 'task')) then
          return 1
        end
      end
    end
  end
  return 0
end
