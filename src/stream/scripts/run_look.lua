-- Looks what has become of copies that runs have replayed, a chunk at a time. A copy is settled when it is gone from the
-- stream of replayed entries; it died again where a dead letter is of it, and both are one step for whoever buries it. So
-- dead letters are looked through to their end first, in the same step; what is neither there nor here has succeeded. That
-- costs workers nothing.
-- Behind: common/ids, common/death, common/left, common/rights
-- KEYS: dead, again, runs, out
-- ARGV: where the look goes on among the copies ('0' to begin), most letters, most bytes
-- Answers: whether there are more letters to look through (0|1), where it goes on among the copies, '0' at the end
local dead, again, runs, out = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('HLEN', out) == 0 then return { 0, '0' } end
redis.call('XLEN', dead) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', again)
local no = lacks(out, 'HDEL HSCAN', runs, 'HINCRBY HSET')
if no then return no end
local from, looked, count, bytes = redis.call('HGET', runs, 'looked') or '0-0', nil, 0, 0
from = just_above(from)
while from do
  if count >= tonumber(ARGV[2]) or bytes > tonumber(ARGV[3]) then break end
  local entry = redis.call('XRANGE', dead, from, '+', 'COUNT', 1)[1]
  if not entry then
    from = nil
    break
  end
  looked, count, from = entry[1], count + 1, just_above(entry[1])
  for _, s in ipairs(entry[2]) do bytes = bytes + #s end
  local v = death_of(entry[2])
  if v and v[#v] ~= '0' then died_again(runs, out, v[8]) end
end
if looked then redis.call('HSET', runs, 'looked', looked) end
if from then return { 1, ARGV[1] } end

local found = redis.call('HSCAN', out, ARGV[1], 'COUNT', 100)
for i = 1, #found[2], 2 do
  local copy, n = found[2][i], found[2][i + 1]
  local entry = redis.call('XRANGE', again, copy, copy)[1]
  if not entry and redis.call('HDEL', out, copy) == 1 then redis.call('HINCRBY', runs, n .. ':succeeded', 1) end
end
return { 0, found[1] }
