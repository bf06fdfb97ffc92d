-- Removes failure records of entries that are neither pending nor parked: settled by a hand other than ours. Where
-- there are no more records than pending entries, only a thorough look goes through them.
-- KEYS: stream, retry, failures
-- ARGV: group, cursor, about how many to look at, thorough (0|1)
-- Answers: the next cursor, how many were removed
if ARGV[2] == '0' and ARGV[4] == '0'
  and redis.call('HLEN', KEYS[3]) <= redis.call('XPENDING', KEYS[1], ARGV[1])[1] then
  return { '0', 0 }
end
local scan = redis.call('HSCAN', KEYS[3], ARGV[2], 'COUNT', ARGV[3])
local ids, removed = {}, 0
for i = 1, #scan[2], 2 do ids[#ids + 1] = scan[2][i] end
-- Most are parked.
local due = #ids > 0 and redis.call('ZMSCORE', KEYS[2], unpack(ids)) or {}
for i, id in ipairs(ids) do
  if not due[i] and #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1) == 0 then
    removed = removed + redis.call('HDEL', KEYS[3], id)
  end
end
return { scan[1], removed }
