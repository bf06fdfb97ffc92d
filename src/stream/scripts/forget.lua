-- Deletes a consumer, and only one that has nothing pending: deleting it would delete that as well.
-- Behind: common/rights, common/clock
-- KEYS: stream, position, breakers, commits
-- ARGV: group, consumer, what the clock should show (ms) and how far it may be off: who looks long gone may be alive
--       where it was set
if is_off(clock_ms(), ARGV[3], ARGV[4]) then return 0 end
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
local no = lacks(KEYS[1], 'XGROUP|DELCONSUMER', KEYS[2], 'HDEL', KEYS[3], 'HDEL', KEYS[4], 'HDEL')
if no then return no end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('HDEL', KEYS[4], ARGV[2])
return 1
