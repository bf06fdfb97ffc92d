-- Keeps an event that is to be added to its stream later. One that is kept already stays as it is.
-- Behind: common/scheduled
-- KEYS: stream, scheduled, events
-- ARGV: the event's id, which event it is, a hash of its data, its due time (ms) or '', how long it has from now (ms)
--       where there is none, then its fields
-- Answers: due time (ms), whether it is new (0|1), whether it is kept with other data (0|1)
local stream, scheduled, events = KEYS[1], KEYS[2], KEYS[3]
local id, which, data = ARGV[1], ARGV[2], ARGV[3]
redis.call('XLEN', stream) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', events)

-- When it is due that has this name, which event it is, and the hash of its data.
local function look(name)
  local due = redis.call('ZSCORE', scheduled, name)
  local kept = due and redis.call('HGET', events, name)
  if not kept then return nil end
  local its, with = string.match(kept, HEAD)
  return string.format('%.0f', due), its or which, with or data
end

local name = name_of(which, id)
local due, its, with = look(name)
if not due and stands_alone(id) then
  due, its, with = look(id)
  if not due then name = id end
end
if due and its == which then return { due, 0, with ~= data and 1 or 0 } end

due = ARGV[4]
if due == '' then
  local t = redis.call('TIME')
  due = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[5])
end
local fields = {}
for a = 6, #ARGV do fields[#fields + 1] = ARGV[a] end
if name ~= id then
  local list = '\0i' .. id
  local others = redis.call('HGET', events, list) or ''
  local listed = false
  for other in string.gmatch(others, WHICH) do listed = listed or other == which end
  if not listed then redis.call('HSET', events, list, others .. which) end
end
redis.call('HSET', events, name, which .. ' ' .. data .. ' ' .. cmsgpack.pack(fields))
redis.call('ZADD', scheduled, due, name)
return { due, 1, 0 }
