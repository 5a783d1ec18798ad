-- One operation, and the jobs that it made ready.

local answer = operations[ARGV[1]]()
get_in_line()
if accepted > 0 then
  redis.call('HINCRBY', prefix .. 'counts', 'accepted', accepted)
end
return answer
