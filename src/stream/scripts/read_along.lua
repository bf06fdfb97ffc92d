-- Reads what comes behind a position of a public stream, if nothing of it has been taken away. Only reads.
-- Behind: common/ids, common/reached
-- KEYS: public stream, the highest position it ever gave
-- ARGV: the position, how many entries had been added up to there or '', most entries
-- Answers: {end, how many entries have been added up to there, is it all there (0|1, or 2: no, for nothing was ever added
--          to it, or 3: no, for the position is behind all that was ever there), entries, the highest position it ever
--          gave or ''}. All entries that there are stand at or below the end, and all events that will be, above. Where
--          nothing was ever added to the stream it may have been deleted, events and all: then the end is a moment ago,
--          by the clock. What was on it may stand a millisecond ahead of the clock: who asks again a little later has all.
local public, after, known, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- A count that a double may not hold is not known.
local function count(n) return n and n < 9007199254740992 and n or nil end

local info, of = redis.pcall('XINFO', 'STREAM', public), {}
if info.err and not string.find(info.err, 'no such key', 1, true) then return { err = info.err } end
for i = 1, #info, 2 do of[info[i]] = info[i + 1] end
local last, added = of['last-generated-id'] or '0-0', of['entries-added'] or 0
local top = highest(redis.pcall('GET', KEYS[2]))
if last == '0-0' then
  local now = redis.call('TIME')
  last = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) - 1) .. '-18446744073709551615'
  if top and above(top, last) then last = top end
  return { last, 0, known == 0 and 1 or 2, {}, top or '' }
end
-- One that was made anew by others, and to which no event was added since, ends below what it had.
local stood, is_short = last, top and above(top, last)
if is_short then last = top end
if above(after, last) then return { last, added, 3, {}, top or '' } end

local first = of['first-entry'] and of['first-entry'][1]
local all_there
if not above(last, after) then
  all_there = true
elseif is_short then
  all_there = false
elseif first and not above(first, after) then
  -- What is trimmed is trimmed from the front, and the front is not there yet. What was deleted says so.
  all_there = not above(of['max-deleted-entry-id'], after)
else
  -- Every entry comes behind the position: are they as many as have been added since? From the beginning that is never
  -- known: the stream may have been deleted and made anew.
  all_there = count(known) and count(added) and added - known == of['length'] and not above(of['max-deleted-entry-id'], after)
end
local entries = {}
local from = just_above(after)
if all_there and most > 0 and from and above(stood, after) then
  entries = redis.call('XRANGE', public, from, '+', 'COUNT', most)
end
return { last, added, all_there and 1 or 0, entries, top or '' }
