-- Adds to their stream the scheduled events whose time has come: event by event, so that what is done stays done
-- whatever becomes of the next.
-- Behind: common/scheduled, common/rights
-- KEYS: stream, scheduled, events
-- ARGV: most events, most bytes
-- Answers: how many were added, ids that have no event any more, next due time (ms) or false, now (ms)
local stream, scheduled, events = KEYS[1], KEYS[2], KEYS[3]
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('XLEN', stream) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', events)
local no = lacks(stream, 'XADD', scheduled, 'ZREM ZRANGE', events, 'HGET HDEL')
if no then return no end
-- The fields of a packed event. What is no event is added as it is: a worker buries it with the reason.
local function unpacked(packed)
  local whole = { 'streamhand.packed', packed }
  local ok, fields = pcall(cmsgpack.unpack, packed)
  -- Lua's unpack ends at some 8,000 values.
  if not ok or type(fields) ~= 'table' or #fields < 2 or #fields % 2 == 1 or #fields > 7000 then return whole end
  for _, s in ipairs(fields) do
    if type(s) ~= 'string' then return whole end
  end
  return fields
end

-- Those that share a score because so many have the same due time come by what stands behind them: see on_schedule.
local function in_turn(names)
  local turns = {}
  for _, name in ipairs(names) do
    local kept = { pcall(cmsgpack.unpack, redis.call('HGET', events, name) or '') }
    turns[name] = kept[1] and type(kept[3]) == 'string' and kept[3] or ''
  end
  table.sort(names, function(a, b)
    if turns[a] ~= turns[b] then return turns[a] < turns[b] end
    return a < b
  end)
  return names
end
local function due_now()
  local found = redis.call('ZRANGEBYSCORE', scheduled, '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
  local names = {}
  for i = 1, #found, 2 do
    local score = found[i + 1]
    if tonumber(score) % 1 >= 0.25 then
      for _, name in ipairs(in_turn(redis.call('ZRANGEBYSCORE', scheduled, score, score, 'LIMIT', 0, 1000))) do
        names[#names + 1] = name
      end
      break
    end
    names[#names + 1] = found[i]
  end
  return names
end

local added, gone, bytes = 0, {}, 0
for _, name in ipairs(due_now()) do
  if bytes > tonumber(ARGV[2]) or added >= tonumber(ARGV[1]) then break end
  local packed = redis.call('HGET', events, name)
  if packed then
    bytes = bytes + #packed
    redis.call('XADD', stream, '*', unpack(unpacked(packed)))
    added = added + 1
  else
    gone[#gone + 1] = id_of(name)
  end
  take_off(scheduled, events, name)
end
return { added, gone, redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')[2] or false, now }
