-- Keeps an event that is to be added to its stream later. One that is kept already stays as it is.
-- KEYS: stream, scheduled, events
-- ARGV: the event's id, its due time (ms) or '', how long it has from now (ms) where there is none, then its fields
-- Answers: due time (ms), whether it is new (0|1)
local stream, scheduled, events, id = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
redis.call('XLEN', stream) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', events)
local known = redis.call('ZSCORE', scheduled, id)
if known then return { string.format('%.0f', known), 0 } end
local due = ARGV[2]
if due == '' then
  local t = redis.call('TIME')
  due = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[3])
end
local fields = {}
for a = 4, #ARGV do fields[#fields + 1] = ARGV[a] end
redis.call('HSET', events, id, cmsgpack.pack(fields))
redis.call('ZADD', scheduled, due, id)
return { due, 1 }
