-- Jobs that nobody would come for.

-- reconcile: most jobs of each kind, grace ms, most crashes, code version.
-- Makes ready again the jobs of silent workers, those due, and those that were taken longer ago than the grace and not
-- claimed. Answers how many, then the keys that are damaged; what does not need those is done all the same. A time
-- further ahead than any that we write was written before the server's clock was set back; it counts as past, or its
-- job would wait for the clock to catch up. Lists that somebody emptied are filled again.
function operations.reconcile()
  local batch, grace, max_crashes, code_version = number_arg(), number_arg(), number_arg(), arg()
  local broken, well = {}, {}
  local function usable(wanted, key)
    if well[key] == nil then
      well[key] = is_well(wanted, key)
      if not well[key] then
        table.insert(broken, key)
      end
    end
    return well[key]
  end
  local common = usable('zset', prefix .. 'dead')
  for _, key in ipairs(keys_of_an_end()) do
    common = usable(key[1], key[2]) and common
  end
  -- Whether a job can be made ready now. One that has ended and lies in an index all the same is doctor's to name.
  local function movable(id)
    local record = fields(id, 'task', 'state') or {}
    local spec, state = TASKS[record[1] or ''], record[2]
    return common and spec ~= nil and (state == 'accepted' or state == 'running' or state == 'waiting')
      and usable('zset', ready_key(spec.queue))
  end
  if usable('zset', prefix .. 'workers') then
    for _, worker in ipairs(past('workers', batch, function() return true end)) do
      local leases = prefix .. 'leases:' .. worker
      if usable('zset', leases) then
        for _, id in ipairs(first_of(leases, '-inf', '+inf', batch, movable)) do
          lapse(id, worker, crash_count(id) >= max_crashes, code_version)
        end
        if redis.call('EXISTS', leases) == 0 then
          forget_worker(worker)
        end
      end
    end
  end
  if usable('zset', prefix .. 'waiting') then
    for _, id in ipairs(past('waiting', batch, movable)) do
      redis.call('ZREM', prefix .. 'waiting', id)
      ready_again(id)
    end
  end
  if usable('zset', prefix .. 'taken') then
    for _, range in ipairs({{0, now - grace}, {'(' .. now, '+inf'}}) do
      for _, id in ipairs(first_of(prefix .. 'taken', range[1], range[2], batch, movable)) do
        redis.call('ZREM', prefix .. 'taken', id)
        ready_again(id)
      end
    end
  end
  for _, queue in ipairs(QUEUES) do
    if usable('zset', ready_key(queue)) and usable('list', queue) then
      add_items(queue, math.min(redis.call('ZCARD', ready_key(queue)) - redis.call('LLEN', queue), batch))
    end
  end
  return {#ready, unpack(broken)}
end
