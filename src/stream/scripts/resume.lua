-- Ends a pause, and brings forward what was put back because of one.
-- KEYS: paused, retry, failures
-- ARGV: what is resumed (stream, or handler: and a type), cursor, about how many records to look at
-- Answers: the next cursor, 1 where it was paused, how many were brought forward
redis.call('ZCARD', KEYS[2]) -- WRONGTYPE surfaces before the first write
local scan = redis.call('HSCAN', KEYS[3], ARGV[2], 'COUNT', ARGV[3])
local was = redis.call('HDEL', KEYS[1], ARGV[1])
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local forward = 0
for i = 1, #scan[2], 2 do
  if string.find(scan[2][i + 1], 'held back: it is paused', 1, true) then
    -- Another pause may hold it still: then it is put back again.
    forward = forward + redis.call('ZADD', KEYS[2], 'XX', 'CH', now, scan[2][i])
  end
end
return { scan[1], was, forward }
