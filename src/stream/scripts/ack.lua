-- Acknowledges entries whose failure record has to go with them, whose stream keeps nothing that is
-- settled, or whose acknowledgement is fenced (after a change of server an old id can be a new entry).
-- KEYS: stream, failures
-- ARGV: group, fenced (0|1), delete (0|1), then id, consumer, count of every entry
local stream, failures, group = KEYS[1], KEYS[2], ARGV[1]
local fenced, delete = ARGV[2] == '1', ARGV[3] == '1'
redis.call('HLEN', failures) -- WRONGTYPE surfaces before the first write
local ids = {}
for a = 4, #ARGV, 3 do
  local mine = true
  if fenced then
    local p = redis.call('XPENDING', stream, group, ARGV[a], ARGV[a], 1)
    mine = #p == 1 and p[1][2] == ARGV[a + 1] and p[1][4] == tonumber(ARGV[a + 2])
  end
  if mine then ids[#ids + 1] = ARGV[a] end
end
if #ids == 0 then return 0 end
local acked = redis.call('XACK', stream, group, unpack(ids))
if delete then redis.call('XDEL', stream, unpack(ids)) end
redis.call('HDEL', failures, unpack(ids))
return acked
