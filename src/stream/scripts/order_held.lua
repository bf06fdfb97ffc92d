-- Which dead letters hold their subjects, of a stream whose events have an order. One that was replayed holds it no more: its
-- copy stands before all that is new. One that is named was seen to be gone, and that was done.
-- Behind: common/ids
-- KEYS: dead, held (of each letter: is it of the stream itself (0|1), its entry there, its subject), again
-- ARGV: letters that are named no more
-- Answers: {is it of the stream itself (0|1), entry, subject} of each that is there, which are gone, and if any are,
--          {entry, subject} of all replayed entries
local dead, held, again = KEYS[1], KEYS[2], KEYS[3]
local all = redis.call('HGETALL', held) -- WRONGTYPE surfaces before the first write
if #ARGV > 0 then
  redis.call('HDEL', held, unpack(ARGV, 1, math.min(#ARGV, 1000)))
  return { {}, {}, {} }
end
local there, gone, copies = {}, {}, {}
for i = 1, #all, 2 do
  local is_new, id, subject = string.match(all[i + 1], '^(%d) (%S+) (.*)$')
  if is_new and #redis.call('XRANGE', dead, all[i], all[i]) > 0 then
    there[#there + 1] = { tonumber(is_new), id, subject }
  else
    gone[#gone + 1] = all[i]
  end
end
local from = #gone > 0 and '-'
while from do
  local page = redis.call('XRANGE', again, from, '+', 'COUNT', 1000)
  for _, entry in ipairs(page) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'subject' then
        copies[#copies + 1] = { entry[1], entry[2][i + 1] }
        break
      end
    end
  end
  from = #page == 1000 and just_above(page[1000][1])
end
return { there, gone, copies }
