-- Which dead letters hold their subjects, of a stream whose events have an order. One that was replayed holds it no more: its
-- copy stands before all that is new. A page at a time: a letter that is there all the time is in one of them.
-- Behind: common/ids
-- KEYS: dead, held (of each letter: is it of the stream itself (0|1), its entry there, its subject), again
-- ARGV: held, where the page begins; or copies, where the page begins; or done, up to 1,000 letters that were seen to be gone
-- Answers: held: {is it of the stream itself (0|1), entry, subject} of each that is there, which are gone, and where the next
--          page begins (0: there is none); copies: {entry, subject} of replayed entries, '', and the same
local dead, held, again = KEYS[1], KEYS[2], KEYS[3]
redis.call('HLEN', held) -- WRONGTYPE surfaces before the first write
if ARGV[1] == 'done' then
  redis.call('HDEL', held, unpack(ARGV, 2))
  return { {}, {}, '0' }
end
local found, gone = {}, {}
if ARGV[1] == 'held' then
  local scan = redis.call('HSCAN', held, ARGV[2], 'COUNT', 500)
  local all = scan[2]
  for i = 1, #all, 2 do
    local is_new, id, subject = string.match(all[i + 1], '^(%d) (%S+) (.*)$')
    if is_new and #redis.call('XRANGE', dead, all[i], all[i]) > 0 then
      found[#found + 1] = { tonumber(is_new), id, subject }
    else
      gone[#gone + 1] = all[i]
    end
  end
  return { found, gone, scan[1] }
end
local page = redis.call('XRANGE', again, ARGV[2], '+', 'COUNT', 500)
for _, entry in ipairs(page) do
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'subject' then
      found[#found + 1] = { entry[1], entry[2][i + 1] }
      break
    end
  end
end
return { found, gone, #page == 500 and just_above(page[500][1]) or '0' }
