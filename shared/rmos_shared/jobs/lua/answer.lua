-- One operation, and the notifications that it made due.

local answer = operations[ARGV[1]]()
send_notifications()
if accepted > 0 then
  redis.call('HINCRBY', prefix .. 'counts', 'accepted', accepted)
end
return answer
