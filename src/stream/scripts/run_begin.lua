-- Notes a run of replays that is to be driven, and forgets old ones that are over.
-- Behind: common/runs, common/rights
-- KEYS: runs, protocol
-- ARGV: protocol number, what it is to do (JSON), when it begins (ms) or '', runs that are remembered
-- Answers: its number, or false and the protocol number of a newer release
local runs, n = KEYS[1], nil
local spoken = redis.call('GET', KEYS[2])
if spoken and tonumber(spoken) > tonumber(ARGV[1]) then return { false, spoken } end
redis.call('HLEN', runs) -- WRONGTYPE surfaces before the first write
local no = lacks(runs, 'HINCRBY HSET HGET HDEL')
if no then return no end
local t = redis.call('TIME')
n = string.format('%.0f', redis.call('HINCRBY', runs, 'last', 1))
redis.call('HSET', runs, n .. ':what', ARGV[2], n .. ':state', ARGV[3] == '' and 'running' or 'waiting', n .. ':at', ARGV[3],
  n .. ':began', string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)))
set_active(runs, n, true)
-- One that is not over may be gone on with; one that has been stopped for very long will not be.
local old = n - ARGV[4]
if old > 0 and redis.call('HGET', runs, string.format('%.0f:state', old)) == 'done' then
  forget_run(runs, string.format('%.0f', old))
end
old = n - 10 * ARGV[4]
if old > 0 then
  set_active(runs, string.format('%.0f', old), false)
  forget_run(runs, string.format('%.0f', old))
end
return { n, false }
