-- Takes an event off the schedule that was added elsewhere, if it is the one that stands there still.
-- Behind: common/scheduled
-- KEYS: scheduled, events
-- ARGV: the name under which it waits, its packed fields ('' if other hands have deleted them)
-- Answers: whether it was there (0|1)
local scheduled, events, name = KEYS[1], KEYS[2], ARGV[1]
redis.call('ZCARD', scheduled) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', events)
if (redis.call('HGET', events, name) or '') ~= ARGV[2] then return 0 end
take_off(scheduled, events, name)
return 1
