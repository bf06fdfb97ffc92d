-- Gives every parked entry that no due time names one: now.
-- KEYS: stream, retry
-- ARGV: group, id to begin at, most entries
-- Answers: id to continue at or false, how many were mended
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3], '(parked)')
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local mended = 0
for _, p in ipairs(pending) do mended = mended + redis.call('ZADD', KEYS[2], 'NX', now, p[1]) end
return { #pending == tonumber(ARGV[3]) and '(' .. pending[#pending][1] or false, mended }
