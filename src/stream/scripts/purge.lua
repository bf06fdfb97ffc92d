-- Deletes dead letters, and only those that are still the ones meant.
-- Behind: common/death
-- KEYS: dead, protocol
-- ARGV: protocol number, most bytes, then of every letter: id, '<dead.entry> <dead.at>'
-- Answers: of every letter it came to whether it was there (1|0), or the protocol number of a newer release
local spoken = redis.call('GET', KEYS[2])
if spoken and tonumber(spoken) > tonumber(ARGV[1]) then return spoken end
local out, bytes = {}, 0
for a = 3, #ARGV, 2 do
  if bytes > tonumber(ARGV[2]) then break end
  local letter = redis.call('XRANGE', KEYS[1], ARGV[a], ARGV[a])[1]
  local fields = letter and letter[2] or {}
  for _, s in ipairs(fields) do bytes = bytes + #s end
  local death = death_of(fields)
  if death and ARGV[a + 1] == death[8] .. ' ' .. death[11] then
    out[#out + 1] = redis.call('XDEL', KEYS[1], ARGV[a])
  else
    out[#out + 1] = 0
  end
end
return out
