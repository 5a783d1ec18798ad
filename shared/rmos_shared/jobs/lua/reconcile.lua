-- Jobs that nobody would come for.

-- reconcile: most jobs of each kind to notify, grace ms, most crashes, code version.
-- Notifies again for the jobs of silent workers, those due, and those whose notification was lost. Answers how many,
-- then the keys that are damaged; what does not need those is done all the same. A time further ahead than any that we write was
-- written before the server's clock was set back; it counts as past, or its job would wait for the clock to catch
-- up.
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
  -- Whether a job can be notified now. One that has ended and lies in an index all the same is doctor's to name.
  local function notifiable(id)
    local record = fields(id, 'task', 'state') or {}
    local spec, state = TASKS[record[1] or ''], record[2]
    return common and spec ~= nil and (state == 'accepted' or state == 'running' or state == 'waiting')
      and usable('zset', prefix .. 'notified:' .. spec.queue)
      and usable('list', spec.queue)
  end
  if usable('zset', prefix .. 'workers') then
    for _, worker in ipairs(past('workers', batch, function() return true end)) do
      local leases = prefix .. 'leases:' .. worker
      if usable('zset', leases) then
        for _, id in ipairs(first_of(leases, '-inf', '+inf', batch, notifiable)) do
          lapse(id, worker, crash_count(id) >= max_crashes, code_version)
        end
        if redis.call('EXISTS', leases) == 0 then
          redis.call('ZREM', prefix .. 'workers', worker)
        end
      end
    end
  end
  if usable('zset', prefix .. 'waiting') then
    for _, id in ipairs(past('waiting', batch, notifiable)) do
      redis.call('ZREM', prefix .. 'waiting', id)
      notify_again(id)
    end
  end
  for _, queue in ipairs(QUEUES) do
    local notifications = prefix .. 'notified:' .. queue
    if usable('zset', notifications) and usable('list', queue) then
      -- With messages still queued, only a notification that a younger one has overtaken is lost; a long backlog
      -- must not be notified twice. With none queued, every notification old enough is.
      local before = now - grace
      if redis.call('LLEN', queue) > 0 then
        local youngest = watermark(queue)
        if youngest > now then
          youngest = 0
          redis.call('DEL', prefix .. 'acknowledged:' .. queue)
        end
        before = math.min(before, youngest - 1)
      end
      for _, range in ipairs({{0, before}, {'(' .. now, '+inf'}}) do
        for _, id in ipairs(first_of(notifications, range[1], range[2], batch, notifiable)) do
          notify_again(id)
        end
      end
    end
  end
  return {#ready, unpack(broken)}
end
