-- Writes a minute of what workers told, and remembers the workers and when each version was first heard of. Redis refuses a
-- minute that is there: then somebody else has written the same, and nothing is done.
-- KEYS: minutes (stream), workers (hash), deploys (hash)
-- ARGV: the minute's beginning (ms), from when on minutes are kept (ms), the packed minute, number of deploys,
--       name and time of each, name of each worker and what is remembered of it
-- Answers: 0|1 whether it was written
local added = redis.pcall('XADD', KEYS[1], 'MINID', '~', ARGV[2], ARGV[1] .. '-0', 'p', ARGV[3])
if added.err then
  if string.find(added.err, 'equal or smaller', 1, true) then return 0 end
  return added
end
local deploys = 4 + 2 * ARGV[4]
for i = 5, deploys, 2 do redis.call('HSETNX', KEYS[3], ARGV[i], ARGV[i + 1]) end
for i = deploys + 1, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
