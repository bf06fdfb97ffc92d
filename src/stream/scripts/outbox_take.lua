-- Takes the turn to relay what waits for a stream of another slot, and looks at the first of it.
-- Behind: common/rights
-- KEYS: outbox, turns, what waits for that stream
-- ARGV: me, that stream, how long a turn lasts (ms), most entries, most bytes
-- Answers: {how long another's turn still lasts (ms)}, or {0, how long ago the first of these were handed to a relay
--       that has told nothing since (ms; -1: they were not), the last of those, the entries}
local outbox, turns, waiting = KEYS[1], KEYS[2], KEYS[3]
local me, target, lasts = ARGV[1], ARGV[2], tonumber(ARGV[3])
redis.call('XLEN', waiting) -- WRONGTYPE surfaces before the first write
redis.call('SCARD', outbox)
local no = lacks(turns, 'HGET HSET HDEL', waiting, 'XRANGE XDEL DEL', outbox, 'SREM')
if no then return no end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local till, who = string.match(redis.call('HGET', turns, 'turn:' .. target) or '', '^(%d+) (.*)$')
local left = till and tonumber(till) - now or 0
-- No turn is longer than this: else the clock was set back.
if who ~= me and left > 0 and left <= 120000 then return { left } end

local entries, from, bytes = {}, '-', 0
while #entries < tonumber(ARGV[4]) and bytes < tonumber(ARGV[5]) do
  local some = redis.call('XRANGE', waiting, from, '+', 'COUNT', 10)
  for _, entry in ipairs(some) do
    if #entries < tonumber(ARGV[4]) and bytes < tonumber(ARGV[5]) then
      entries[#entries + 1] = entry
      for _, value in ipairs(entry[2]) do bytes = bytes + #value end
    end
  end
  if #some < 10 then break end
  from = '(' .. some[#some][1]
end
if #entries == 0 then
  redis.call('DEL', waiting)
  redis.call('SREM', outbox, target)
  redis.call('HDEL', turns, 'turn:' .. target, 'sent:' .. target, 'why:' .. target)
  return { 0, -1, '', {} }
end

-- If the first is the one that was handed out last time, nobody knows what became of it: its mark must still be there.
local first = entries[1][1]
local known, last, at = string.match(redis.call('HGET', turns, 'sent:' .. target) or '', '^(%S+) (%S+) (%d+)$')
local ago = -1
if known == first then ago = math.max(now - at, 0)
else
  last = entries[#entries][1]
  at = string.format('%.0f', now)
end
-- If memory is short this is refused, and the relay, which gives memory back, goes on without a turn: marks tell what
-- two of them do.
redis.pcall('HSET', turns, 'turn:' .. target, string.format('%.0f', now + lasts) .. ' ' .. me,
  'sent:' .. target, first .. ' ' .. last .. ' ' .. at)
return { 0, ago, last, entries }
