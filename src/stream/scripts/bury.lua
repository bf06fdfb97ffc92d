-- Moves one entry, whole, to the dead letters.
-- Behind: common/letter, common/rights
-- KEYS: stream, retry, dead, failures, guard
-- ARGV: group, consumer, id, count, own (1: the lease never lapsed), ms since its delivery, delete (0|1),
--       reason, error, attempts, handler, name of the stream, replays, crash checks, then (once asked for) the fields
-- Answers: ok, taken, nobody, missing (no longer in the stream: send the fields along)
local stream, retry, dead, failures, guard = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, me, id, own = ARGV[1], ARGV[2], ARGV[3], ARGV[5] == '1'
local p = redis.call('XPENDING', stream, group, id, id, 1)
if #p == 0 and not own then return 'nobody' end
if #p == 1 and (p[1][2] ~= me or p[1][4] ~= tonumber(ARGV[4])) then return 'taken' end
-- Nobody's, and its holder buries it: there is no delivery count any more to fence a repeat, or a step that came
-- before the entry's success elsewhere. Every burial, and every success after a failure, leaves a guard.
if #p == 0 and redis.call('EXISTS', guard) == 1 then return 'ok' end

local fields
local entry = redis.call('XRANGE', stream, id, id)[1]
if entry then
  fields = entry[2]
elseif #ARGV > 14 then
  fields = {}
  for a = 15, #ARGV do fields[#fields + 1] = ARGV[a] end
else
  return 'missing'
end

-- Of one that was not read its own fields tell what it is.
local handler = ARGV[11]
for f = 1, handler == '' and #fields or 0, 2 do
  if fields[f] == 'type' then handler = fields[f + 1] break end
end
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', dead)
local no = lacks(dead, 'XADD', guard, 'SET', stream, 'XACK XDEL', failures, 'HDEL', retry, 'ZREM')
if no then return no end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local first = now - ARGV[6]
local record = redis.call('HGET', failures, id)
if record then first = tonumber(string.match(record, '^(%d+) ')) or first end

redis.call('XADD', dead, '*', unpack(letter(fields, { reason = ARGV[8], error = ARGV[9], attempts = ARGV[10],
  handler = handler, stream = ARGV[12], group = group, entry = id, consumer = me, first = first, now = now,
  replays = ARGV[13], checks = ARGV[14] })))
redis.call('SET', guard, '', 'PX', 3600000)
redis.call('XACK', stream, group, id)
if ARGV[7] == '1' then redis.call('XDEL', stream, id) end
redis.call('HDEL', failures, id)
redis.call('ZREM', retry, id)
return 'ok'
