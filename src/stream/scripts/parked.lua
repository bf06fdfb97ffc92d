-- Reads parked entries, whole, in the order of their ids.
-- Behind: common/ids
-- KEYS: stream
-- ARGV: group, consumer of what is parked, lowest id, highest id, most entries, most bytes
-- Answers: entries as XRANGE has them, id to go on at or false, bytes
local out, bytes, from = {}, 0, ARGV[3]
local most, room = tonumber(ARGV[5]), tonumber(ARGV[6])
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], from, ARGV[4], most, ARGV[2])
if pending.err then
  if string.find(pending.err, 'NOGROUP', 1, true) then return { {}, false, 0 } end
  return pending
end
for _, p in ipairs(pending) do
  if bytes >= room then return { out, p[1], bytes } end
  local entry = redis.call('XRANGE', KEYS[1], p[1], p[1])[1]
  if entry then
    for _, s in ipairs(entry[2]) do bytes = bytes + #s end
    out[#out + 1] = entry
  end
end
return { out, #pending == most and just_above(pending[most][1]) or false, bytes }
