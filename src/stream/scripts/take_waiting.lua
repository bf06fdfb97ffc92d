-- Takes entries that wait for a worker that can handle them: others gave them back because they did not know their type
-- or version, or because a limit, a pause or an open breaker held it back.
-- Behind: common/ids, common/rights, common/reading
-- KEYS: stream, retry, failures, waiting (a zset of equal scores: `<bytes of the type>:<type>:<version>:<id>`)
-- ARGV: group, consumer, most entries, most bytes, then for every kind: the bounds of its names, as ZRANGEBYLEX has them,
--       and most entries of it
-- Answers: entries {id, count, fields, record}, ids lost to trimming, for every kind whether there may be more (0|1),
--          now (ms)
local stream, retry, failures, waiting, group, me = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2]
local left, room = math.min(tonumber(ARGV[3]), 500), tonumber(ARGV[4])
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', failures)
local no = lacks(stream, 'XCLAIM', failures, 'HGET HDEL', retry, 'ZADD ZREM', waiting, 'ZREM')
if no then return no end
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local out, trimmed, more, bytes, last = {}, {}, {}, 0, nil
for a = 5, #ARGV, 3 do
  local most = math.min(left, tonumber(ARGV[a + 2]))
  local names = redis.call('ZRANGEBYLEX', waiting, ARGV[a], ARGV[a + 1], 'LIMIT', 0, most + 1)
  local looked = 0
  for _, name in ipairs(names) do
    if looked == most or bytes > room then break end
    looked = looked + 1
    local id = string.match(name, ':(%d+%-%d+)$')
    local p = redis.call('XPENDING', stream, group, id, id, 1) -- NOGROUP is raised here, before the first write
    local record = redis.call('HGET', failures, id) or ''
    local count, waits = string.match(record, '^%d+ %d+ (%d+) %S (%S+) ')
    if waits == '?' and #p == 0 then
      -- Its group was made anew, or `(parked)` was deleted: waking knows what to do with it.
      redis.call('ZADD', retry, 'XX', now, id)
    elseif waits == '?' and p[1][2] == '(parked)' and p[1][4] == tonumber(count) then
      last = last or read_up_to(stream, group)
      local is_to_come = above(id, last)
      local claimed = is_to_come or redis.call('XCLAIM', stream, group, me, 0, id, 'RETRYCOUNT', p[1][4] + 1)
      if is_to_come then
        -- Its group was set back below it. It goes on when it is delivered: see wake.lua.
      elseif #claimed == 1 then
        out[#out + 1] = { id, p[1][4] + 1, claimed[1][2], record }
        for _, v in ipairs(claimed[1][2]) do bytes = bytes + #v end
      else
        trimmed[#trimmed + 1] = id
        redis.call('HDEL', failures, id)
      end
      redis.call('ZREM', retry, id)
    end
    -- What waits for something else by now, or for nothing, is named for nothing.
    redis.call('ZREM', waiting, name)
  end
  left = left - looked
  more[#more + 1] = #names > looked and 1 or 0
end
return { out, trimmed, more, now }
