-- Deletes dead letters, and only those that are still the ones meant and are not held.
-- Behind: common/ids, common/death, common/fingerprint, common/left, common/rights
-- KEYS: dead, protocol, notes, groups, runs, out
-- ARGV: protocol number, most bytes, then of every letter: id, '<dead.entry> <dead.at>'
-- Answers: of every letter it came to whether it was there (1|0), or is held (2); or the protocol number of a newer release
local dead, notes = KEYS[1], KEYS[3]
local spoken = redis.call('GET', KEYS[2])
if spoken and tonumber(spoken) > tonumber(ARGV[1]) then return spoken end
redis.call('HLEN', notes) -- WRONGTYPE surfaces before the first write
local no = lacks(dead, 'XDEL', notes, 'HMGET HDEL')
if no then return no end
local out, bytes = {}, 0
for a = 3, #ARGV, 2 do
  if bytes > tonumber(ARGV[2]) then break end
  local letter = redis.call('XRANGE', dead, ARGV[a], ARGV[a])[1]
  local fields = letter and letter[2] or {}
  for _, s in ipairs(fields) do bytes = bytes + #s end
  local v, before = death_of(fields)
  if not v or ARGV[a + 1] ~= v[8] .. ' ' .. v[11] then
    out[#out + 1] = 0
  elseif notes_of(notes, ARGV[a], ARGV[a + 1]).hold then
    out[#out + 1] = 2
  else
    out[#out + 1] = redis.call('XDEL', dead, ARGV[a])
    left(ARGV[a], fields, v, before, notes, KEYS[4], KEYS[5], KEYS[6])
  end
end
return out
