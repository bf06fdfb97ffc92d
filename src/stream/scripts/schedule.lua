-- Keeps an event that is to be added to its stream later. One that is kept already stays as it is, or is replaced, its due
-- time and all.
-- Behind: common/scheduled, common/on_schedule, common/rights, common/sealed
-- KEYS: stream, scheduled, events
-- ARGV: the event's id, which event it is, its due time (ms) or '', how long it has from now (ms) where there is none,
--       whether its replicas are waited for (0|1), and behind that r if it replaces what is kept, then its fields
-- Answers: due time (ms), whether it is new (0|1, 2 if it has replaced another), the packed fields of what is kept where its data is written otherwise,
--       or false, whether anything was written (0|1)
local stream, scheduled, events, id, which = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
redis.call('XLEN', stream) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', events)
local no = lacks(scheduled, 'ZADD', events, 'HSET')
if no then return no end
local fields = {}
for a = 6, #ARGV do fields[#fields + 1] = ARGV[a] end

local function score(key, name) return redis.call('ZSCORE', key, name) end
local function value(key, field) return redis.call('HGET', key, field) end
local name, due, packed = place_of(scheduled, events, id, which, fields, score, value)
local replaces = string.sub(ARGV[5], 2) == 'r'
if packed and not replaces then
  -- WAIT covers what its own connection wrote: see publish_once.
  local again = ARGV[5] == '1' and redis.pcall('HSET', events, name, packed)
  local differs = not is_the_same(packed, fields) and packed
  return { string.format('%.0f', due), 0, differs, type(again) == 'number' and 1 or 0 }
end

-- Who may not look schedules it all the same, and a worker takes it to where it belongs.
if not packed and is_sealed(stream) then
  return redis.error_reply('ERR The stream has exhausted the last possible ID, it is sealed')
end

due = ARGV[3]
if due == '' then
  local t = redis.call('TIME')
  due = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[4])
end
put_on(redis.call, scheduled, events, id, which, name, due, cmsgpack.pack(fields))
return { due, packed and 2 or 1, false, 1 }
