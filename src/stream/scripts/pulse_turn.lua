-- Whether it is a worker's turn to merge pulses, and what there is to merge.
-- KEYS: turn, minutes (stream), pulse (stream)
-- ARGV: worker, ms for which it is nobody else's turn, end of the last minute that is over (ms), ms that it looks back before
--       the first minute that is not merged, most pulses
-- Answers: 0|1 whether it is its turn, when the last merged minute began (ms) or false, the first pulses
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local at = last and string.match(last[1], '^%d+') or false
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return { 0, at, {} } end
local from = at and string.format('%.0f', math.max(at + 60000 - ARGV[4], 0)) or '-'
return { 1, at, redis.call('XRANGE', KEYS[3], from, '(' .. ARGV[3] .. '-0', 'COUNT', ARGV[5]) }
