-- Notes something of a dead letter, beside it: the letter itself stays as it is.
-- Behind: common/ids, common/left, common/death, common/rights
-- KEYS: dead, notes, kept
-- ARGV: id, '<dead.entry> <dead.at>', what `edited` is to be before this, or '*' for anything; then names (see left.lua) and
--       values in turn, '' to forget one
-- Answers: ok, gone, or changed
local dead, notes, id, mark = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
redis.call('HLEN', notes) -- WRONGTYPE surfaces before the first write
local no = lacks(notes, 'HSET HDEL HMGET')
if no then return no end
local letter = redis.call('XRANGE', dead, id, id)[1]
local v = letter and death_of(letter[2])
if not v or v[8] .. ' ' .. v[11] ~= mark then return 'gone' end
local is = notes_of(notes, id, mark)
if ARGV[3] ~= '*' and (is.edited or '') ~= ARGV[3] then return 'changed' end
if not is.of then forget_notes(notes, id) end
for a = 4, #ARGV, 2 do
  if ARGV[a + 1] ~= '' then
    redis.call('HSET', notes, id .. ' ' .. ARGV[a], ARGV[a + 1])
    is[ARGV[a]] = ARGV[a + 1]
  else
    redis.call('HDEL', notes, id .. ' ' .. ARGV[a])
    is[ARGV[a]] = nil
    -- What is not held any more may lie below where all was held.
    if ARGV[a] == 'hold' then redis.call('HDEL', KEYS[3], 'held') end
  end
end
is.of = nil
if next(is) then redis.call('HSET', notes, id .. ' of', mark) else redis.call('HDEL', notes, id .. ' of') end
return 'ok'
