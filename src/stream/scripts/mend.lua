-- Gives every parked entry that no due time names one: now. Where no more are parked than have due times, only a
-- thorough look goes through them (due times of entries that are no longer parked may stand in for missing ones), a slice
-- at a time.
-- Behind: common/ids
-- KEYS: stream, retry
-- ARGV: group, id to begin at, most entries, thorough (0|1)
-- Answers: id to continue at or false, how many were mended
if ARGV[2] == '-' and ARGV[4] == '0' then
  local parked = 0
  for _, c in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1])[4] or {}) do
    if c[1] == '(parked)' then parked = tonumber(c[2]) end
  end
  if parked <= redis.call('ZCARD', KEYS[2]) then return { false, 0 } end
end
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3], '(parked)')
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local due, mended = { 'ZADD', KEYS[2], 'NX' }, 0
for _, p in ipairs(pending) do due[#due + 1], due[#due + 2] = now, p[1] end
if #pending > 0 then mended = redis.call(unpack(due)) end
return { #pending == tonumber(ARGV[3]) and just_above(pending[#pending][1]) or false, mended }
