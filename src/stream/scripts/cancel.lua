-- Takes scheduled events off: they will not be added to their stream.
-- Behind: common/scheduled, common/on_schedule
-- KEYS: scheduled, events
-- ARGV: of every event: its id, then which one it is, its type and its source, or '' for the only one of that id
-- Answers: of each whether it was scheduled (0|1), or how many are, below zero, where it is not the only one: then
--       none is taken off
local scheduled, events = KEYS[1], KEYS[2]
redis.call('ZCARD', scheduled) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', events)
local function score(key, name) return redis.call('ZSCORE', key, name) end
local function value(key, field) return redis.call('HGET', key, field) end
local out = {}
for a = 1, #ARGV, 4 do
  local found = meant(scheduled, events, ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], score, value)
  if #found == 1 then take_off(scheduled, events, found[1]) end
  out[#out + 1] = #found < 2 and #found or -#found
end
return out
