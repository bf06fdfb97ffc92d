-- Asks something of a group's workers for a time: they hear of it by wake.lua. What is over is taken out meanwhile.
-- KEYS: asked (hash)
-- ARGV: field, value, ms that it stands; nothing more: it is taken back
-- Answers: until when it stands (ms), or 0|1 whether there was anything to take back; false where too much is asked already
local key, field = KEYS[1], ARGV[1]
if not ARGV[3] then return redis.call('HDEL', key, field) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all, over = redis.call('HGETALL', key), {}
for i = 1, #all, 2 do
  local till = tonumber(string.match(all[i + 1], '^%d+'))
  if not till or till <= now then over[#over + 1] = all[i] end
end
if #over > 0 then redis.call('HDEL', key, unpack(over)) end
if #all / 2 - #over >= 200 and redis.call('HEXISTS', key, field) == 0 then return false end
local till = string.format('%.0f', now + ARGV[3])
redis.call('HSET', key, field, till .. ' ' .. ARGV[2])
if redis.call('PTTL', key) < tonumber(ARGV[3]) then redis.call('PEXPIRE', key, ARGV[3]) end
return till
