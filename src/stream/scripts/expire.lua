-- Drops the dead letters that are not to be kept, a step at a time, and says when there are too many. Those that are held
-- stay. Says besides whether a run of replays waits for somebody to drive it: nobody asks for that alone.
-- Behind: common/ids, common/death, common/fingerprint, common/left, common/runs, common/clock
-- KEYS: dead, kept (hash: whose turn it was and when, how many were dropped, up to where all that is left is held), notes,
--       groups, runs, out
-- ARGV: kind (age|count|none), what is kept: ms or letters, step: turn|on (of the same turn), consumer,
--       ms between two turns, most letters, letters from which it is warned of, ms between two warnings,
--       what the clock should show (ms) and how far it may be off
-- Answers: letters there are, dropped, the first and the last id dropped or false, whether there is more (0|1),
--          whether it is time to warn (0|1), the number of a run that nobody drives or false; or
--          false where it is another's turn; or off, where the clock is
local dead, kept, kind, value, step, me = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local now = clock_ms()
if is_off(now, ARGV[9], ARGV[10]) then return 'off' end
local at, by, warned = unpack(redis.call('HMGET', kept, 'at', 'by', 'warned'))
if step == 'turn' and at and now - at >= 0 and now - at < tonumber(ARGV[5]) then return false end
if step == 'on' and by ~= me then return false end
local length = redis.call('XLEN', dead) -- WRONGTYPE surfaces before the first write
local most = kind == 'count' and math.min(length - value, tonumber(ARGV[6])) or tonumber(ARGV[6])
local bound = kind == 'age' and string.format('%.0f-0', math.max(now - value, 0)) or nil
local dropped, first, last, bytes, notes = 0, false, false, 0, KEYS[3]
local any_held = kind ~= 'none' and redis.call('EXISTS', notes) == 1
-- Up to where all that is left is held, and how many those are: they are none of those that are kept by their number.
local from, passed = string.match(any_held and redis.call('HGET', kept, 'held') or '', '^(%S+) (%d+)$')
local held, ended = from, false
from, passed = from or '-', tonumber(passed or 0)
while kind ~= 'none' and dropped < most and bytes < 4194304 and (kind ~= 'count' or length - dropped - passed > value) do
  local letter = from and redis.call('XRANGE', dead, from, '+', 'COUNT', 1)[1]
  if not letter or (bound and not above(bound, letter[1])) then
    ended = true
    break
  end
  local id, fields = letter[1], letter[2]
  for _, s in ipairs(fields) do bytes = bytes + #s end
  local v, before = death_of(fields)
  from = just_above(id)
  if any_held and v and notes_of(notes, id, v[8] .. ' ' .. v[11]).hold then
    held, passed = from or MAX .. '-' .. MAX, passed + 1
  else
    redis.call('XDEL', dead, id)
    if v then left(id, fields, v, before, notes, KEYS[4], KEYS[5], KEYS[6]) end
    first, last, dropped = first or id, id, dropped + 1
  end
end
local more = not ended and (kind == 'count' and length - dropped - passed > value or kind == 'age')
local stamp = string.format('%.0f', now)
-- Only what comes after a write is sure not to be refused where memory is short; nothing depends on it.
if kind ~= 'none' then redis.pcall('HSET', kept, 'at', stamp, 'by', me) end
if held then redis.pcall('HSET', kept, 'held', string.format('%s %.0f', held, passed)) end
if dropped > 0 then redis.pcall('HINCRBY', kept, 'dropped', dropped) end
length = length - dropped
local warn = length >= tonumber(ARGV[7]) and not (warned and math.abs(now - warned) < tonumber(ARGV[8]))
if warn then redis.pcall('HSET', kept, 'warned', stamp) end
return { length, dropped, first, last, more and 1 or 0, warn and 1 or 0, step == 'turn' and undriven(KEYS[5], now) }
