-- Takes a turn at looking for what is wrong with a group, or goes on with it, and keeps what is told of if any is given.
-- KEYS: turn, what is told of
-- ARGV: who looks, for how long nobody else does (ms), what is told of or nothing, for how long that is kept (ms)
-- Returns: {what is told of, or false}, or false if it is another's turn
local turn, standing = KEYS[1], KEYS[2]
local whose = redis.call('GET', turn)
if whose and whose ~= ARGV[1] then return false end
local kept = redis.call('GET', standing)
redis.call('SET', turn, ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '' then redis.call('SET', standing, ARGV[3], 'PX', ARGV[4]) end
return { kept }
