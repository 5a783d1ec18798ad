-- Taking jobs off the queues.

-- put_back: ids. Jobs that were taken and will not be claimed; those that moved on are left alone.
function operations.put_back()
  need('zset', prefix .. 'taken')
  for _, queue in ipairs(QUEUES) do
    need('zset', ready_key(queue))
  end
  while cursor < #ARGV do
    local id = arg()
    if field(id, 'state') == 'accepted' and spec_of(id) and redis.call('ZREM', prefix .. 'taken', id) == 1 then
      ready_again(id)
    end
  end
end

local function keep_raw(item, queue)
  local id = string.format('%d-%d', now, next_number(prefix .. 'letters'))
  redis.call('HSET', prefix .. 'raw:' .. id, 'item', item, 'queue', queue, 'reason', 'malformed_message',
    'detail', 'the ledger did not put it on this queue', 'size', #item, 'kept_at', now, 'state', 'dead')
  redis.call('ZADD', prefix .. 'raw', now, id)
  mirror_one()
  return id
end

-- Keeps what others pushed onto a queue among the raw letters, once it is its turn: when what stands before it in
-- the list has been taken. Adds {queue, '', raw id} to ``found`` for each.
local function keep_strangers(queue, empty, found)
  while #found < MOST_MEMBERS do
    local item = redis.call('LINDEX', queue, -1)
    if not item or (item == READY_ITEM and not empty) then
      return
    elseif item ~= READY_ITEM then
      if not is_well('zset', prefix .. 'raw') then
        return -- it stays where it is; doctor names the key
      end
      table.insert(found, {queue, '', keep_raw(item, queue)})
    end
    redis.call('RPOP', queue)
  end
end

-- The jobs at the head of a line that one notification may carry, up to ``most``: they are of one task. A job that
-- crashed is done alone, so that one which kills its worker takes no other with it. What cannot be handed out is
-- set aside, as taken, for the reconciler of a version that can. Jobs of paused tasks are passed over, where
-- ``paused`` names any of this line. Answers also whether it gave up looking, after so many of those.
local function next_group(queue, most, paused)
  local group, aside = {ids = {}}, {}
  local from, limit = paused and passed_before(queue) or 0, 1
  local passed, last_passed = 0, nil
  while #group.ids < limit and passed < MOST_PASSED do
    local amount = limit - #group.ids
    local page = paused and math.max(amount, 100) or amount
    local members = redis.call('ZRANGE', ready_key(queue), from, from + page - 1)
    for _, id in ipairs(members) do
      if #group.ids == limit then
        break
      end
      from = from + 1
      local record = fields(id, 'task', 'crash_count', 'run_id', 'request_id') or {}
      local spec, crashed = TASKS[record[1] or ''], number(record[2]) > 0
      if not spec or spec.queue ~= queue then
        table.insert(aside, id)
      elseif paused and paused['task:' .. record[1]] then
        passed, last_passed = passed + 1, id
      elseif #group.ids == 0 then
        group = {ids = {id}, task = record[1], run_id = record[3] or '', request_id = record[4] or ''}
        limit = crashed and 1 or math.min(most, spec.ids_per_notification)
      elseif crashed or record[1] ~= group.task then
        limit = #group.ids
        break
      else
        table.insert(group.ids, id)
      end
    end
    if #members == 0 or #aside >= MOST_MEMBERS then
      break
    end
  end
  if last_passed then
    -- Whatever else stood before it leaves the line in this step.
    remember_place(queue, last_passed)
  end
  return group, aside, passed >= MOST_PASSED
end

local function mark_taken(queue, ids)
  if #ids > 0 then
    local times = {}
    for _, id in ipairs(ids) do
      table.insert(times, now)
      table.insert(times, id)
    end
    leave_line(queue, ids)
    call_with('ZADD', prefix .. 'taken', times)
  end
end

-- take: most notifications, queues. Takes from each queue in turn, and joins the jobs that wait in line, spread over
-- all the notifications that may be taken: work that waits is done in groups, work that does not is done at once.
-- Answers {queue, notification} for each, and {queue, '', raw id} for what others had pushed. With all queues empty
-- or paused the answer is {}. A job whose notification is lost on the way is in ``taken``, and comes back from there.
function operations.take()
  local most, queues, share, found, taken = number_arg(), {}, {}, {}, 0
  local paused, passing = read_pauses(), {}
  need('zset', prefix .. 'taken')
  while cursor < #ARGV do
    local queue = arg()
    if paused and paused['queue:' .. queue] then
      redis.call('DEL', prefix .. 'wake:' .. queue) -- nothing to wake for; resume makes tokens anew
    -- A queue that is damaged must not keep the worker from the others.
    elseif is_well('zset', ready_key(queue)) then
      local length = redis.call('ZCARD', ready_key(queue))
      table.insert(queues, queue)
      if is_well('list', queue) then
        keep_strangers(queue, length == 0, found)
      end
      passing[queue] = paused and has_paused_tasks(paused, queue) and paused or nil
      share[queue] = math.ceil(math.max(length - (passing[queue] and passed_before(queue) or 0), 1) / most)
    end
  end
  while taken < most and #queues > 0 do
    local left = {}
    for _, queue in ipairs(queues) do
      if taken < most then
        local group, aside, gave_up = next_group(queue, share[queue], passing[queue])
        mark_taken(queue, aside)
        mark_taken(queue, group.ids)
        if #group.ids > 0 then
          table.insert(found, {queue, notification(group.task, group.ids, group.run_id, group.request_id)})
          taken = taken + 1
        end
        if redis.call('EXISTS', ready_key(queue)) == 1 and (#group.ids > 0 or #aside > 0) then
          table.insert(left, queue)
        elseif gave_up then
          wake(queue, 1) -- the next look goes on from here, and need not be waited for
        else
          redis.call('DEL', prefix .. 'wake:' .. queue)
        end
      end
    end
    queues = left
  end
  return found
end
