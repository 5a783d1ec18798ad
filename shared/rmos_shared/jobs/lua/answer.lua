-- One operation, the deliveries and events that tell of it, and the jobs that it made ready.

local answer = operations[ARGV[1]]()
accept_deliveries()
get_in_line()
write_events()
if accepted > 0 then
  redis.call('HINCRBY', prefix .. 'counts', 'accepted', accepted)
end
return answer
