-- The server's clock was set back: what was delivered, renewed or parked before lies in its future, where it would not
-- grow old for as long. Such entries count from now on, with whom they are, and what is parked is due so much sooner.
-- Safe to repeat: afterwards none of them lies in the future.
-- Behind: common/ids
-- KEYS: stream, retry
-- ARGV: group, id to begin at, most entries, ms that the clock was set back by
-- Answers: id to continue at or false, how many were brought back
local stream, retry, group = KEYS[1], KEYS[2], ARGV[1]
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
local pending = redis.call('XPENDING', stream, group, ARGV[2], '+', ARGV[3])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local back = 0
for _, p in ipairs(pending) do
  local id, holder, idle = p[1], p[2], p[3]
  -- Redis tells no idle time below zero. What was touched within this very millisecond has zero, too: it keeps its due
  -- time, unless that lies as far ahead.
  if idle == 0 then
    redis.call('XCLAIM', stream, group, holder, 0, id, 'IDLE', 1, 'JUSTID')
    local due = holder == '(parked)' and redis.call('ZSCORE', retry, id)
    if due and due - now > ARGV[4] / 2 then
      redis.call('ZADD', retry, 'XX', string.format('%.0f', math.max(due - ARGV[4], now)), id)
      back = back + 1
    end
  end
end
return { #pending == tonumber(ARGV[3]) and just_above(pending[#pending][1]) or false, back }
