-- One operation, the jobs that it made ready, and the events.

local answer = operations[ARGV[1]]()
get_in_line()
write_events()
if accepted > 0 then
  redis.call('HINCRBY', prefix .. 'counts', 'accepted', accepted)
end
return answer
