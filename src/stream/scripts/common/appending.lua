-- What appending events to aggregates has in common, whoever does it. An event is put on the public stream first, always:
-- its answer is the position that the aggregate's own event carries. Of all these writes only the very first can be refused
-- (for want of memory, by a disk that is full), and then nothing was done.
--
-- A public stream is `key`, `reached` (the key with the highest position it ever gave), and `first` and `last`: the places
-- among KEYS of the aggregates that go there.

-- The value of a field, of some that stand in a list.
local function field(fields, name, from, to)
  for i = from or 1, to or #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- From here on this position is the highest. Answers the one that was.
local function reaches(public, position)
  local was = redis.pcall('SET', public.reached, position, 'GET')
  if type(was) == 'table' then redis.call('SET', public.reached, position) end
  was = highest(was)
  if was then return was end
  -- Nothing is known of it: then it is behind what these aggregates have, at least.
  for k = public.first, public.last do
    local last = redis.pcall('XREVRANGE', KEYS[k], '+', '-', 'COUNT', 1)
    local at = last[1] and highest(field(last[1][2], 'position'))
    if at and (not was or above(at, was)) then was = at end
  end
  return was
end

-- Puts an event on the public stream, behind all that was ever there. A stream that is made anew may have been there a
-- moment ago, or far ahead of the clock; and others make it, too. The first event of a request finds out.
local function publish(public, version, from, to)
  local key = public.key
  local position = redis.pcall('XADD', key, 'NOMKSTREAM', '*', 'aggregateversion', version, unpack(ARGV, from, to))
  local is_made = not position
  if is_made then
    local t = redis.call('TIME')
    local id = string.format('%.0f-0', t[1] * 1000 + math.floor(t[2] / 1000) + 1)
    position = redis.pcall('XADD', key, id, 'aggregateversion', version, unpack(ARGV, from, to))
  end
  if public.is_behind_all or position.err then return position end
  public.is_behind_all = true
  local was = reaches(public, position)
  if was and not above(position, was) then
    -- Nobody has seen yet what is taken back. Who reads the stream from before that is told that something was deleted:
    -- what the stream before it had may never have been read.
    redis.call('XDEL', key, position)
    redis.call('XSETID', key, was, 'MAXDELETEDID', just_below(was))
    position = redis.pcall('XADD', key, '*', 'aggregateversion', version, unpack(ARGV, from, to))
    redis.call('SET', public.reached, position.err and was or position)
  elseif was and is_made then
    redis.call('XSETID', key, position, 'MAXDELETEDID', just_below(was))
  end
  return position
end

local function wrong(key, err)
  if not string.find(err, 'WRONGTYPE', 1, true) then return { err = err } end
  return redis.error_reply('WRONGTYPE ' .. key .. ' holds something else than events')
end

local function entry_of(version) return string.format('%.0f-0', version) end

-- The version of an aggregate, and its last event.
local function version_of(key)
  local info = redis.pcall('XINFO', 'STREAM', key)
  if info.err then
    if string.find(info.err, 'no such key', 1, true) then return 0 end
    return nil, wrong(key, info.err)
  end
  local version = string.match(field(info, 'last-generated-id'), '^(%d+)%-0$')
  if version == '0' then return 0 end
  local first, last = field(info, 'first-entry'), field(info, 'last-entry')
  -- Whose every version is there has no number of them that a double can't hold.
  if not version or #version > 15 or not first or first[1] ~= '1-0' then return nil end
  return tonumber(version), last
end

-- Looks whether events can be appended to an aggregate, the one at this place, which is expected at a version (or
-- exists|any). They stand among ARGV from `a` on, each behind its number of strings. Answers what stands in the way, or
-- false, what is to be done, and where ARGV goes on. If they are there already, that has as many positions as events, and
-- their fields.
local function look_at(place, key, expected, count, a)
  local events, id_at = {}, {}
  for i = 1, count do
    local from, to = a + 1, a + ARGV[a]
    local id = field(ARGV, 'id', from, to)
    events[i] = { id = id, from = from, to = to }
    id_at[id] = i
    a = to + 1
  end
  local version, last = version_of(key)
  if not version then return last or { 'strange', place } end

  -- The version these events come after, where they are new, or where they would stand, if they are not.
  local after = tonumber(expected)
  local is_last = last and id_at[field(last[2], 'id')]
  if not after then
    if expected == 'exists' and version == 0 then return { 'conflict', place, version } end
    after = is_last and version - count or version
  end
  if after > version then return { 'conflict', place, version } end
  local positions, stored = {}, {}
  if after == version then
    -- Events that are the last ones already would be stored a second time.
    if is_last then return { 'overlap', place, version } end
  else
    local met
    for i = 1, count do
      local at = after + i
      local found = at > 0 and redis.call('XRANGE', key, entry_of(at), entry_of(at))[1]
      local id = found and field(found[2], 'id')
      met = met or id and id_at[id]
      if id == events[i].id then
        positions[#positions + 1] = field(found[2], 'position')
        stored[#stored + 1] = found[2]
      end
    end
    if #positions < count then return { met and 'overlap' or 'conflict', place, version } end
  end
  return false, { key = key, version = version, after = after, events = events, positions = positions,
    stored = stored, count = count }, a
end

-- Appends what can be. Answers the error if the first write is refused.
local function store(public, one)
  for i, e in ipairs(one.events) do
    local version = string.format('%.0f', one.after + i)
    local position = publish(public, version, e.from, e.to)
    if position.err then return position end
    redis.call('XADD', one.key, version .. '-0', 'position', position, unpack(ARGV, e.from, e.to))
    one.positions[i], public.highest = position, position
  end
end

-- Says how far the public stream is once all is appended.
local function reached_now(public)
  if public.highest then redis.call('SET', public.reached, public.highest) end
end
