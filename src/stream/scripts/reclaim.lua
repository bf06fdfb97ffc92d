-- Takes over what one holder let lapse. An entry on its third attempt or on its last may be what killed its
-- workers: it goes alone to the consumer `<me>!`, one at a time, and only when the caller has room for it. Which attempt is
-- the last is a matter of its type.
-- Behind: common/ids, common/rights, common/known, common/clock
-- KEYS: stream, failures, retry
-- ARGV: group, me, holder, the holder's lease in ms, most entries, most bytes, attempt from which an entry
--       goes alone, room for one alone (0|1), id to begin at, what the clock should show (ms) and how far it may be
--       off: nothing is taken where it is further off, for then it was set, or the server stood still on the way, and
--       what looks old may only be unrenewed; then types for which it is another attempt, each
--       followed by that
-- Answers: entries {id, count, fields, record}, the one that goes alone (a list of none or one), ids lost to
--          trimming, how many wait to go alone, id to continue at or false, now (ms)
local stream, failures, group, me, holder, lease = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local most, room, from, alone_room = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
redis.call('HLEN', failures) -- WRONGTYPE surfaces before the first write
local no = lacks(stream, 'XCLAIM', failures, 'HGET HSET HDEL')
if no then return no end
local now = clock_ms()
local out, alone, trimmed, waiting, bytes = {}, {}, {}, 0, 0

if is_off(now, ARGV[10], ARGV[11]) then return { {}, {}, {}, 0, false, string.format('%.0f', now) } end

-- An entry's type is looked at only if that decides.
local from_of, lowest, highest = {}, from, from
for i = 12, #ARGV, 2 do
  local attempt = tonumber(ARGV[i + 1])
  from_of[ARGV[i]], lowest, highest = attempt, math.min(lowest, attempt), math.max(highest, attempt)
end
local function goes_alone(id, attempt)
  if attempt >= highest then return true end
  if attempt < lowest then return false end
  local entry = redis.call('XRANGE', stream, id, id)[1]
  local fields = entry and entry[2] or {}
  for i = 1, #fields, 2 do
    if fields[i] == 'type' then return attempt >= (from_of[fields[i + 1]] or from) end
  end
  return attempt >= from
end

local died = string.sub(holder, -1) == '!' and '!' or '+'
local function take(id, idle, count, consumer, list)
  local claimed = redis.call('XCLAIM', stream, group, consumer, lease, id, 'RETRYCOUNT', count + 1)
  if #claimed == 0 then
    trimmed[#trimmed + 1] = id
    redis.call('HDEL', failures, id)
    return
  end
  -- The record tells how it died, also to an adopt after the answer to this got lost. See park.lua.
  local first, given, doomed, error
  local record = redis.call('HGET', failures, id)
  if record then first, given, doomed, error = string.match(record, '^(%d+) (%d+) %d+ %S (%S+) (.*)$') end
  if not first then
    first, given, doomed = string.format('%.0f', now - idle), 0, '-'
    error = 'worker ' .. holder .. ' died or froze while it held this'
  end
  record = table.concat({ first, given, count + 1, died, doomed, error }, ' ')
  redis.call('HSET', failures, id, record)
  list[#list + 1] = { id, count + 1, claimed[1][2], record }
  for _, v in ipairs(claimed[1][2]) do bytes = bytes + #v end
end

local pending = redis.call('XPENDING', stream, group, 'IDLE', lease, ARGV[9], '+', 1000, holder)
local next_id = #pending == 1000 and just_above(pending[1000][1]) or false
for _, p in ipairs(pending) do
  local id, idle, count = p[1], p[3], p[4]
  local record = redis.call('HGET', failures, id)
  local given = record and tonumber(string.match(record, '^%d+ (%d+) ')) or 0
  local is_parked = false
  if count == 1 then
    -- Whoever had it delivered after its group was set back is gone, and never came to look at it.
    local noted = last_noted(failures, id)
    is_parked, count = parks_again(stream, group, KEYS[3], id, noted), noted or count
  end
  if is_parked then
    -- It waits for its due time.
  elseif goes_alone(id, count - given + 1) then
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
