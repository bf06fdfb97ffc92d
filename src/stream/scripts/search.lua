-- Reads whole entries between two ids: so many, and no more bytes in a step than are asked for, but for the last entry.
-- Behind: common/ids
-- KEYS: stream
-- ARGV: lowest id, highest id, newest first (1|0), most entries, most bytes
-- Answers: entries as XRANGE has them, id to go on at or false, bytes
local low, high, backwards = ARGV[1], ARGV[2], ARGV[3] == '1'
local most, room = tonumber(ARGV[4]), tonumber(ARGV[5])
local out, bytes = {}, 0
-- As many at a time as fit by what the ones before took: what is large comes one by one.
local step = 1
while #out < most and bytes < room do
  local asked = math.min(step, most - #out)
  local entries
  if backwards then entries = redis.call('XREVRANGE', KEYS[1], high, low, 'COUNT', asked)
  else entries = redis.call('XRANGE', KEYS[1], low, high, 'COUNT', asked) end
  for _, entry in ipairs(entries) do
    for _, s in ipairs(entry[2]) do bytes = bytes + #s end
    out[#out + 1] = entry
  end
  if #entries < asked then return { out, false, bytes } end
  local last = entries[#entries][1]
  if backwards then high = just_below(last) else low = just_above(last) end
  if not (backwards and high or not backwards and low) then return { out, false, bytes } end
  step = math.max(1, math.min(4 * step, 100, math.floor((room - bytes) / (bytes / #out + 1))))
end
return { out, backwards and high or low, bytes }
