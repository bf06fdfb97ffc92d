-- Takes scheduled events off: they will not be added to their stream.
-- KEYS: scheduled, events
-- ARGV: ids
-- Answers: of each whether it was scheduled (0|1)
local scheduled, events = KEYS[1], KEYS[2]
redis.call('ZCARD', scheduled) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', events)
local out = {}
for i, id in ipairs(ARGV) do
  out[i] = redis.call('ZREM', scheduled, id)
  redis.call('HDEL', events, id)
end
return out
