-- Takes entries that wait for a worker that knows their type and version, for one that does: others gave them back.
-- Behind: common/rights
-- KEYS: stream, retry, failures, unknown (a zset of equal scores: `<bytes of the type>:<type>:<version>:<id>`)
-- ARGV: group, consumer, most entries, most bytes, then the bounds of what the worker knows, as ZRANGEBYLEX has them
-- Answers: entries {id, count, fields, record}, ids lost to trimming, whether there may be more (0|1), now (ms)
local stream, retry, failures, unknown, group, me = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2]
local most, room = math.min(tonumber(ARGV[3]), 500), tonumber(ARGV[4])
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', failures)
local no = lacks(stream, 'XCLAIM', failures, 'HGET HDEL', retry, 'ZADD ZREM', unknown, 'ZREM')
if no then return no end
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local out, trimmed, looked, bytes = {}, {}, 0, 0
for a = 5, #ARGV, 2 do
  for _, member in ipairs(redis.call('ZRANGEBYLEX', unknown, ARGV[a], ARGV[a + 1], 'LIMIT', 0, most + 1 - looked)) do
    if looked == most or bytes > room then return { out, trimmed, 1, now } end
    looked = looked + 1
    local id = string.match(member, ':(%d+%-%d+)$')
    local p = redis.call('XPENDING', stream, group, id, id, 1) -- NOGROUP is raised here, before the first write
    local record = redis.call('HGET', failures, id) or ''
    local count, waits = string.match(record, '^%d+ %d+ (%d+) %S (%S+) ')
    if waits == '?' and #p == 0 then
      -- Its group was made anew, or `(parked)` was deleted: waking knows what to do with it.
      redis.call('ZADD', retry, 'XX', now, id)
    elseif waits == '?' and p[1][2] == '(parked)' and p[1][4] == tonumber(count) then
      local claimed = redis.call('XCLAIM', stream, group, me, 0, id, 'RETRYCOUNT', p[1][4] + 1)
      if #claimed == 1 then
        out[#out + 1] = { id, p[1][4] + 1, claimed[1][2], record }
        for _, v in ipairs(claimed[1][2]) do bytes = bytes + #v end
      else
        trimmed[#trimmed + 1] = id
        redis.call('HDEL', failures, id)
      end
      redis.call('ZREM', retry, id)
    end
    -- What waits for something else by now, or for nothing, is named for nothing.
    redis.call('ZREM', unknown, member)
  end
end
return { out, trimmed, 0, now }
