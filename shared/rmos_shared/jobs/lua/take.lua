-- Taking messages off the queues.

-- notify: ids. Notifications that were taken and will not be acknowledged; jobs that moved on are left alone.
function operations.notify()
  for _, queue in ipairs(QUEUES) do
    need_queue(queue)
  end
  while cursor < #ARGV do
    local id = arg()
    if field(id, 'state') == 'accepted' and spec_of(id) then
      notify_again(id)
    end
  end
end

-- keep_raw: item, queue, reason, detail.
local function keep_raw(item, queue, reason, detail)
  local id = string.format('%d-%d', now, next_number(prefix .. 'letters'))
  redis.call('HSET', prefix .. 'raw:' .. id, 'item', item, 'queue', queue, 'reason', reason, 'detail', detail,
    'size', #item, 'kept_at', now, 'state', 'dead')
  redis.call('ZADD', prefix .. 'raw', now, id)
  mirror_one()
  return id
end

-- Adds the notifications that lie next in the queue to one that was popped, as long as their task and ``most`` ids
-- allow: work that waits is done in groups, work that does not is done at once. A job that crashed is
-- done alone, so that one which kills its worker takes no other with it.
local function join(first, queue, most)
  local ids, seen = first.ids, {}
  for _, id in ipairs(ids) do
    seen[id] = true
  end
  while first.fresh and #ids < most do
    local item = redis.call('LINDEX', queue, -1)
    local following = item and read_notification(item, queue)
    if not following or following.task ~= first.task or not following.fresh or #ids + #following.ids > most then
      break
    end
    redis.call('RPOP', queue)
    for _, id in ipairs(following.ids) do
      if not seen[id] then
        table.insert(ids, id)
        seen[id] = true
      end
    end
  end
  return notification(first.task, ids, first.message_id, argsrepr_of(first.task, ids, first.run_id, first.request_id))
end

-- take: most messages, whether to join notifications (1 or 0), queues. Pops from each queue in turn. A notification
-- of ours is answered as {queue, item}; anything else is kept among the dead letters in this very step and answered as
-- {queue, '', reason, id}. With all queues empty the answer is {}. A notification whose answer is lost counts as lost,
-- and is sent again; so does one for a task that only another version knows, by the reconciler of that version,
-- and one for a job whose record is damaged, once it is whole again.
function operations.take()
  local most, joining, queues, share, found = number_arg(), arg() == '1', {}, {}, {}
  while cursor < #ARGV do
    local queue = arg()
    -- A queue that is none must not keep the worker from the others.
    local length = redis.pcall('LLEN', queue)
    if type(length) == 'number' then
      table.insert(queues, queue)
      -- What waits is spread over all the messages that may be taken.
      share[queue] = joining and math.ceil(length / most) or 1
    end
  end
  while #found < most and #queues > 0 do
    local left = {}
    for _, queue in ipairs(queues) do
      local item = #found < most and redis.call('RPOP', queue)
      if item then
        local first, reason, detail = read_notification(item, queue)
        if first then
          local together = math.min(share[queue], TASKS[first.task].ids_per_notification)
          table.insert(found, {queue, together > #first.ids and join(first, queue, together) or item})
        elseif reason ~= 'not_now' then
          if not is_well('zset', prefix .. 'raw') then
            -- It cannot be kept elsewhere, so it goes back, and what lies behind it waits.
            redis.call('RPUSH', queue, item)
            if #found > 0 then
              return found
            end
            need('zset', prefix .. 'raw')
          end
          table.insert(found, {queue, '', reason, keep_raw(item, queue, reason, detail)})
        end
        table.insert(left, queue)
      elseif #found < most then
        redis.call('DEL', prefix .. 'wake:' .. queue)
      end
    end
    queues = left
  end
  return found
end
