-- Trims from a stream what all of its groups have settled, a step at a time, or says what could be.
-- What a group has not settled, and all above it: its oldest pending entry (parked ones are pending), or else what it
-- has not read. A group that has just been destroyed holds as it did: its workers make it anew where it stood.
-- Behind: common/ids, common/lag, common/clock
-- KEYS: stream, trimmed (hash: whose turn it was and when; where each group stood), then of every group its due times
-- ARGV: group, kind (acked|age|count), what is kept: ms or entries, force (0|1), step: turn|on (of the same turn)|look
--       (change nothing), consumer, ms between two turns, ms that a destroyed group holds, most entries,
--       ms after which it is said what holds, ms between two such warnings, most entries and most bytes to look at where
--       it has to be counted what is unread, what the clock should show (ms) and how far it may be off, then the groups whose due times the keys are
-- Answers: wait, ms to the next turn
--          off: the clock is further off
--          groups, their names: the keys were those of others
--          none: there is no stream, or the group is not in it (it may be about to be made anew: nothing is trimmed)
--          done, entries trimmed, of these not settled by every group, whether there is more (0|1),
--            what holds: false or {group, why (unread|pending|parked|gone), first id held, its age in ms, pending,
--            whether it holds what should have gone (0, 1, or 2: and it is time to warn), unread or false where nobody
--            is told, whether it is at least so many (0|1)},
--            entries that could be trimmed (looking) and whether at least so many (0|1)
local stream, trimmed = KEYS[1], KEYS[2]
local kind, kept, force, step = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]
local me, most = ARGV[6], tonumber(ARGV[9])
local LAST = MAX .. '-' .. MAX
local function map(list)
  local of = {}
  for i = 1, #list, 2 do of[list[i]] = list[i + 1] end
  return of
end

local now = clock_ms()
if is_off(now, ARGV[14], ARGV[15]) then return { 'off' } end
local noted = map(redis.call('HGETALL', trimmed)) -- WRONGTYPE surfaces before the first write
if step == 'turn' and noted.at then
  local ago = now - noted.at
  if ago >= 0 and ago < tonumber(ARGV[7]) then return { 'wait', ARGV[7] - ago } end
end
if step == 'on' and noted.by ~= me then return { 'wait', ARGV[7] } end
if redis.call('TYPE', stream).ok == 'none' then return { 'none' } end

local due, groups, names, strange = {}, {}, {}, false
for a = 16, #ARGV do due[ARGV[a]] = KEYS[a - 13] end
for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local info = map(g)
  names[#names + 1], groups[info.name] = info.name, info
  strange = strange or not due[info.name]
end
if not groups[ARGV[1]] then return { 'none' } end
if strange then return { 'groups', names } end

local guard, holder, why
local function hold(id, name, reason)
  if not guard or above(guard, id) then guard, holder, why = id, name, reason end
end
local notes, gone = { 'at', string.format('%.0f', now), 'by', me }, {}
for _, name in ipairs(names) do
  -- One that has read the last id there can be waits for nothing.
  local stands = just_above(groups[name]['last-delivered-id'])
  if stands then hold(stands, name, 'unread') else stands = LAST end
  local p = redis.call('XPENDING', stream, name)
  local parked = 0
  if p[1] > 0 then
    if above(stands, p[2]) then stands = p[2] end
    hold(p[2], name, 'pending')
    for _, c in ipairs(p[4]) do if c[1] == '(parked)' then parked = tonumber(c[2]) end end
  end
  -- Due times of entries that are pending with nobody: the group was made anew, and waking will bring them back.
  if redis.call('ZCARD', due[name]) > parked then hold('0-0', name, 'parked') end
  notes[#notes + 1] = 'group:' .. name
  notes[#notes + 1] = string.format('%s %.0f', stands, now)
end
for field, note in pairs(noted) do
  local name = string.match(field, '^group:(.*)$')
  if name and not groups[name] then
    local stood, seen = string.match(note, '^(%S+) (%d+)$')
    if stood and now - seen < tonumber(ARGV[8]) then hold(stood, name, 'gone') else gone[#gone + 1] = field end
  end
end

local holds_any = guard ~= nil
guard = guard or LAST
local length = redis.call('XLEN', stream)
local bound = kind == 'age' and string.format('%.0f-0', math.max(now - kept, 0)) or nil
local room = kind == 'count' and math.min(length - kept, most) or most
local settled = bound and above(guard, bound) and bound or guard

-- The id above the first entries of the stream, as many as there is room for, as far as they lie below another.
local function first_above(id, count)
  local upto, from, bytes = just_below(id), '0-0', 0
  if not upto then return id, 0, false end
  for n = 1, count do
    local entry = redis.call('XRANGE', stream, from, upto, 'COUNT', 1)[1]
    if not entry then return id, n - 1, false end
    for _, s in ipairs(entry[2]) do bytes = bytes + #s end
    from = just_above(entry[1])
    if bytes > 4194304 then return from, n, true end
  end
  return from, count, true
end

local could, at_least, cut, forced, more = 0, 0, 0, 0, false
-- Whole nodes of the stream first, which costs next to nothing; then what is left is less than one node, exactly.
local function trim(id, count)
  local gone = redis.call('XTRIM', stream, 'MINID', '~', id, 'LIMIT', count)
  if gone > 0 then
    more = true
    return gone
  end
  if kind == 'count' then
    local n
    id, n, more = first_above(id, math.min(count, 100))
    more = more and n < count
  end
  return redis.call('XTRIM', stream, 'MINID', '=', id)
end
if step == 'look' then
  if room > 0 then
    local _, below_it, more_than = first_above(settled, math.min(room, 1000))
    could, at_least = below_it, more_than and below_it < room and 1 or 0
  end
else
  if room > 0 then
    cut = trim(settled, room)
    if force and not more and room > cut then
      forced = trim(bound or LAST, room - cut)
    end
  end
  -- Only what comes after a write is sure not to be refused where memory is short; and no trimming is lost if it is.
  redis.pcall('HSET', trimmed, unpack(notes))
  if cut > 0 then redis.pcall('HINCRBY', trimmed, 'settled', cut) end
  if #gone > 0 then redis.pcall('HDEL', trimmed, unpack(gone)) end
end

local held = holds_any and redis.call('XRANGE', stream, guard, '+', 'COUNT', 1)[1]
if not held then return { 'done', cut + forced, forced, more and 1 or 0, false, could, at_least } end
-- Of an id that is not by the clock no age is known.
local age = now - (exact((parts(held[1]))) or now)
local too_long
if force then
  too_long = false
elseif kind == 'age' then
  too_long = above(bound, held[1])
elseif kind == 'count' then
  too_long = not more and length - cut > kept
else
  too_long = age > tonumber(ARGV[10])
end
local warn = too_long and not (noted.warned and math.abs(now - noted.warned) < tonumber(ARGV[11]))
if warn and step ~= 'look' then redis.pcall('HSET', trimmed, 'warned', string.format('%.0f', now)) end
local info = groups[holder] or {}
local unread, some = false, 0
if info.name and (warn or step == 'look') then
  unread, some = lag_of(stream, map(redis.call('XINFO', 'STREAM', stream)), info, redis.call('HGET', trimmed, 'settled'),
    tonumber(ARGV[12]), tonumber(ARGV[13]))
end
local holds = { holder, why, held[1], string.format('%.0f', math.max(age, 0)), info.pending or 0,
  too_long and (warn and 2 or 1) or 0, unread, some }
return { 'done', cut + forced, forced, more and 1 or 0, holds, could, at_least }
