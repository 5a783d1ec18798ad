-- One operation, the deliveries, events and publications that tell of it, and the jobs that it made ready.

local answer = operations[ARGV[1]]()
accept_deliveries()
get_in_line()
write_events()
write_unsealed()
if accepted > 0 then
  redis.call('HINCRBY', prefix .. 'counts', 'accepted', accepted)
end
return answer
