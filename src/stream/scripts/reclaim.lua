-- Takes over what one holder let lapse. An entry on its third attempt or on its last may be what killed its
-- workers: it goes alone to the consumer `<me>!`, one at a time, and only when the caller has room for it.
-- KEYS: stream, failures
-- ARGV: group, me, holder, the holder's lease in ms, most entries, most bytes, attempt from which an entry
--       goes alone, room for one alone (0|1), id to begin at
-- Answers: entries {id, count, fields, record}, the one that goes alone (a list of none or one), ids lost to
--          trimming, how many wait to go alone, id to continue at or false, now (ms)
local stream, failures, group, me, holder, lease = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local most, room, from, alone_room = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
redis.call('HLEN', failures) -- WRONGTYPE surfaces before the first write
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out, alone, trimmed, waiting, bytes = {}, {}, {}, 0, 0

local function take(id, idle, count, consumer, list)
  local claimed = redis.call('XCLAIM', stream, group, consumer, lease, id, 'RETRYCOUNT', count + 1)
  if #claimed == 0 then
    trimmed[#trimmed + 1] = id
    redis.call('HDEL', failures, id)
    return
  end
  local record = redis.call('HGET', failures, id)
  if not record then
    record = string.format('%.0f', now - idle) .. ' 0 - worker ' .. holder .. ' died or froze while it held this'
    redis.call('HSET', failures, id, record)
  end
  list[#list + 1] = { id, count + 1, claimed[1][2], record }
  for _, v in ipairs(claimed[1][2]) do bytes = bytes + #v end
end

local pending = redis.call('XPENDING', stream, group, 'IDLE', lease, ARGV[9], '+', 1000, holder)
local next_id = #pending == 1000 and '(' .. pending[1000][1] or false
for _, p in ipairs(pending) do
  local id, idle, count = p[1], p[3], p[4]
  local record = redis.call('HGET', failures, id)
  local given = record and tonumber(string.match(record, '^%d+ (%d+) ')) or 0
  if count - given + 1 >= from then
    if alone_room and #alone == 0 then
      take(id, idle, count, me .. '!', alone)
    else
      waiting = waiting + 1
    end
  elseif #out < most and bytes < room then
    take(id, idle, count, me, out)
  elseif not alone_room then
    next_id = id
    break
  end
end
return { out, alone, trimmed, waiting, next_id, string.format('%.0f', now) }
