-- Moves one entry, whole, to the dead letters.
-- KEYS: stream, retry, dead, failures, guard
-- ARGV: group, consumer, id, count, own (1: the lease never lapsed), ms since its delivery, delete (0|1),
--       reason, error, attempts, handler, name of the stream, replays, then (once asked for) the fields
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
elseif #ARGV > 13 then
  fields = {}
  for a = 14, #ARGV do fields[#fields + 1] = ARGV[a] end
else
  return 'missing'
end

local function rfc3339(ms)
  local days = math.floor(ms / 86400000)
  local rest = ms - days * 86400000
  -- civil_from_days, Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day, month = doy - math.floor((153 * mp + 2) / 5) + 1, mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, math.floor(rest / 3600000),
    math.floor(rest / 60000) % 60, math.floor(rest / 1000) % 60, rest % 1000)
end

redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', dead)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local first = now - ARGV[6]
local record = redis.call('HGET', failures, id)
if record then first = tonumber(string.match(record, '^(%d+) ')) or first end

-- Lua's unpack ends at some 8,000 values, so a very wide entry travels as one field.
if #fields > 7000 then fields = { 'streamhand.packed', cmsgpack.pack(fields) } end
local n = #fields
for i, v in ipairs({
  'dead.reason', ARGV[8], 'dead.error', ARGV[9], 'dead.attempts', ARGV[10], 'dead.handler', ARGV[11],
  'dead.stream', ARGV[12], 'dead.group', group, 'dead.entry', id, 'dead.consumer', me,
  'dead.first_delivered', rfc3339(first), 'dead.at', rfc3339(now), 'dead.replays', ARGV[13],
}) do fields[n + i] = v end

redis.call('XADD', dead, '*', unpack(fields))
redis.call('SET', guard, '', 'PX', 3600000)
redis.call('XACK', stream, group, id)
if ARGV[7] == '1' then redis.call('XDEL', stream, id) end
redis.call('HDEL', failures, id)
redis.call('ZREM', retry, id)
return 'ok'
