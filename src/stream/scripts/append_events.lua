-- Appends events to aggregates, and puts the same events on the public stream: all of them, or nothing.
-- Behind: common/ids, common/reached
-- KEYS: public stream, the highest position it ever gave, then each aggregate
-- ARGV: the version of the first event, where there is one aggregate, it is expected at the version before, and it is
--       known that none of the events is its last one, else empty; then for each aggregate: the version it is expected
--       at (or exists|any), number of events; then of every event: number of strings, strings
-- Answers: positions on the public stream, by spaces, where the first was given and is right: a list costs more
--       {'done', is it new (1), a repeat (0), or a repeat that nothing could be written for (2), then for each aggregate: {first version, positions on the public stream}}
--       {'conflict', place of the aggregate, its version}
--       {'overlap', place of the aggregate, its version}
--       {'strange', place of the aggregate}: it does not begin with its first event
--
-- The public stream first, always: its answer is the position that the aggregate's own event carries. Of all these
-- writes only the very first can be refused (for want of memory, by a disk that is full), and then nothing was done.
local public, reached = KEYS[1], KEYS[2]

-- The value of a field, of some that stand in a list.
local function field(fields, name, from, to)
  for i = from or 1, to or #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- From here on this position is the highest. Answers the one that was.
local function reaches(position)
  local was = redis.pcall('SET', reached, position, 'GET')
  if type(was) == 'table' then redis.call('SET', reached, position) end
  was = highest(was)
  if was then return was end
  -- Nothing is known of it: then it is behind what these aggregates have, at least.
  for k = 3, #KEYS - 1 do
    local last = redis.pcall('XREVRANGE', KEYS[k], '+', '-', 'COUNT', 1)
    local at = last[1] and highest(field(last[1][2], 'position'))
    if at and (not was or above(at, was)) then was = at end
  end
  return was
end

-- Puts an event on the public stream, behind all that was ever there. A stream that is made anew may have been there a
-- moment ago, or far ahead of the clock; and others make it, too. The first event of a request finds out.
local is_behind_all = false
local function publish(version, from, to)
  local position = redis.pcall('XADD', public, 'NOMKSTREAM', '*', 'aggregateversion', version, unpack(ARGV, from, to))
  local is_made = not position
  if is_made then
    local t = redis.call('TIME')
    local id = string.format('%.0f-0', t[1] * 1000 + math.floor(t[2] / 1000) + 1)
    position = redis.pcall('XADD', public, id, 'aggregateversion', version, unpack(ARGV, from, to))
  end
  if is_behind_all or position.err then return position end
  is_behind_all = true
  local was = reaches(position)
  if was and not above(position, was) then
    -- Nobody has seen yet what is taken back. Who reads the stream from before that is told that something was deleted:
    -- what the stream before it had may never have been read.
    redis.call('XDEL', public, position)
    redis.call('XSETID', public, was, 'MAXDELETEDID', just_below(was))
    position = redis.pcall('XADD', public, '*', 'aggregateversion', version, unpack(ARGV, from, to))
    redis.call('SET', reached, position.err and was or position)
  elseif was and is_made then
    redis.call('XSETID', public, position, 'MAXDELETEDID', just_below(was))
  end
  return position
end

-- The usual case, in the fewest steps. An aggregate with so many events whose ids end there
-- lacks none of them; that the ids end there is said by its first XADD.
local first = tonumber(ARGV[1])
if first and redis.pcall('XLEN', KEYS[3]) == first - 1 then
  local version, count, positions, from = ARGV[1], tonumber(ARGV[3]), {}, 5
  for i = 1, count do
    local to = from - 1 + ARGV[from - 1]
    local position = publish(version, from, to)
    local refused = position.err and position
    if not refused then
      local stored = redis.pcall('XADD', KEYS[3], version .. '-0', 'position', position, unpack(ARGV, from, to))
      if stored.err then
        -- Other hands have deleted events there, or it is another stream. Nobody has seen yet what is taken back.
        redis.call('XDEL', public, position)
        refused = stored
      end
    end
    if refused then
      if i > 1 then
        redis.call('SET', reached, positions[i - 1])
        return refused
      end
      break
    end
    if count == 1 then return position end
    positions[i], version, from = position, string.format('%.0f', first + i), to + 2
  end
  if #positions == count then
    redis.call('SET', reached, positions[count])
    return table.concat(positions, ' ')
  end
end

local function wrong(key, err)
  if not string.find(err, 'WRONGTYPE', 1, true) then return { err = err } end
  return redis.error_reply('WRONGTYPE ' .. key .. ' holds something else than events')
end
local public_is = redis.pcall('XLEN', public) -- WRONGTYPE surfaces before the first write
if type(public_is) == 'table' then return wrong(public, public_is.err) end

local function id_of(version) return string.format('%.0f-0', version) end

-- The version of an aggregate, and its last event.
local function look(key)
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

local all, repeats, a = {}, 0, 2
for k = 3, #KEYS - 1 do
  local key, expected, count = KEYS[k], ARGV[a], tonumber(ARGV[a + 1])
  local events, place_of = {}, {}
  a = a + 2
  for i = 1, count do
    local from, to = a + 1, a + ARGV[a]
    local id = field(ARGV, 'id', from, to)
    events[i] = { id = id, from = from, to = to }
    place_of[id] = i
    a = to + 1
  end
  local version, last = look(key)
  if not version then return last or { 'strange', k - 2 } end

  -- The version these events come after, where they are new, or where they would stand, if they are not.
  local after = tonumber(expected)
  local is_last = last and place_of[field(last[2], 'id')]
  if not after then
    if expected == 'exists' and version == 0 then return { 'conflict', k - 2, version } end
    after = is_last and version - count or version
  end
  if after > version then return { 'conflict', k - 2, version } end
  local positions = {}
  if after == version then
    -- Events that are the last ones already would be stored a second time.
    if is_last then return { 'overlap', k - 2, version } end
  else
    local met
    for i = 1, count do
      local at = after + i
      local found = at > 0 and redis.call('XRANGE', key, id_of(at), id_of(at))[1]
      local id = found and field(found[2], 'id')
      met = met or id and place_of[id]
      if id == events[i].id then positions[#positions + 1] = field(found[2], 'position') end
    end
    if #positions == count then
      repeats = repeats + 1
    elseif met then
      return { 'overlap', k - 2, version }
    else
      return { 'conflict', k - 2, version }
    end
  end
  all[k - 2] = { key = key, version = version, after = after, events = events, positions = positions, count = count }
end

if repeats > 0 then
  for place, one in ipairs(all) do
    if #one.positions < one.count then return { 'overlap', place, one.after } end
  end
end

local answer, highest_now = { 'done', repeats > 0 and 0 or 1 }, nil
if repeats > 0 then
  -- WAIT covers what its own connection wrote: of a repeat it would say nothing. What an aggregate is at is written as
  -- it is; replicas that have this have what was before it.
  local same = redis.pcall('XSETID', all[1].key, id_of(all[1].version))
  if same.err then answer[2] = 2 end
end
for place, one in ipairs(all) do
  if repeats == 0 then
    for i, e in ipairs(one.events) do
      local version = string.format('%.0f', one.after + i)
      local position = publish(version, e.from, e.to)
      if position.err then return position end
      redis.call('XADD', one.key, version .. '-0', 'position', position, unpack(ARGV, e.from, e.to))
      one.positions[i], highest_now = position, position
    end
  end
  answer[place + 2] = { one.after + 1, one.positions }
end
if highest_now then redis.call('SET', reached, highest_now) end
return answer
