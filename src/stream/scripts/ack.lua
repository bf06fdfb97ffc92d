-- Acknowledges entries whose failure record has to go with them, whose stream keeps nothing that is
-- settled, whose acknowledgement is fenced (after a change of server an old id can be a new entry), or comes late: their
-- lease has run out, and another worker may have taken them over.
-- Behind: common/rights, common/guards
-- KEYS: stream, retry, failures, guards
-- ARGV: group, which (0: all of them, 1: fenced, only what is still the worker's, late: all of them, and they come late),
--       delete (0|1), then id, consumer, count of every entry
local stream, retry, failures, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local fenced, late, delete = ARGV[2] == '1', ARGV[2] == 'late', ARGV[3] == '1'
redis.call('HLEN', failures) -- WRONGTYPE surfaces before the first write
redis.call('ZCARD', retry)
local no = lacks(stream, 'XACK XDEL', failures, 'HMGET HDEL', retry, 'ZREM')
if no then return no end
local ids, taken_over = {}, {}
for a = 4, #ARGV, 3 do
  local mine = true
  if fenced or late then
    local p = redis.call('XPENDING', stream, group, ARGV[a], ARGV[a], 1)
    mine = #p == 1 and p[1][2] == ARGV[a + 1] and p[1][4] == tonumber(ARGV[a + 2])
  end
  if mine or late then ids[#ids + 1] = ARGV[a] end
  if late and not mine then taken_over[#taken_over + 1] = ARGV[a] end
end
if #ids == 0 then return 0 end
local acked = redis.call('XACK', stream, group, unpack(ids))
if delete then redis.call('XDEL', stream, unpack(ids)) end
local recorded = redis.call('HMGET', failures, unpack(ids))
redis.call('HDEL', failures, unpack(ids))
-- A late acknowledgement may be one of an entry that has been parked again since.
redis.call('ZREM', retry, unpack(ids))
-- A repeated park, or the burial that follows from it, must find that what it speaks of has succeeded. An
-- acknowledgement must not fail for that, whatever is in the way.
local ended = {}
for i = 1, #ids do
  if recorded[i] then ended[#ended + 1] = ids[i] end
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
guard(KEYS[4], ended, now, ARGV[5])
-- Who has it now finds it with nobody, and must not bury what has succeeded. Its handler may run for long.
guard(KEYS[4], taken_over, now, ARGV[5], true)
return acked
