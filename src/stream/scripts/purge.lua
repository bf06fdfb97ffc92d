-- Deletes dead letters, and only those that are still the ones meant.
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
  local n = #fields
  for _, s in ipairs(fields) do bytes = bytes + #s end
  if n >= 22 and ARGV[a + 1] == fields[n - 8] .. ' ' .. fields[n - 2] then
    out[#out + 1] = redis.call('XDEL', KEYS[1], ARGV[a])
  else
    out[#out + 1] = 0
  end
end
return out
