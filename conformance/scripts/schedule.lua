-- What waits for its time, and under which names. An event is on the schedule under its id. Others of the same id, of
-- another source or type, have names of their own, '\0m<which event><its id>', and '\0i<id>' among the events has the
-- list of those: 32 digits each. An id that begins like that itself never stands alone. What is kept of an event is its
-- fields, packed, and at most its turn behind them (see on_schedule): workers of other groups may be of another release.
local WHICH = string.rep('%x', 32)
local function name_of(which, id) return '\0m' .. which .. id end
local function id_of(name)
  return string.sub(name, 1, 2) == '\0m' and string.sub(name, 35) or name
end
local function stands_alone(id) return string.byte(id, 1) ~= 0 end

-- The first field of this name that says something.
local function says(fields, name)
  for i = 1, #fields - 1, 2 do
    if fields[i] == name and fields[i + 1] ~= '' then return fields[i + 1] end
  end
  return ''
end

-- The fields of what is kept; nil where other hands have written something else.
local function fields_of(kept)
  local ok, fields = pcall(cmsgpack.unpack, kept or '')
  return ok and type(fields) == 'table' and fields or nil
end

-- Takes an event off.
local function take_off(scheduled, events, name)
  redis.call('ZREM', scheduled, name)
  redis.call('HDEL', events, name)
  if id_of(name) == name then return end
  local which, list = string.sub(name, 3, 34), '\0i' .. id_of(name)
  local left = {}
  for other in string.gmatch(redis.call('HGET', events, list) or '', WHICH) do
    if other ~= which then left[#left + 1] = other end
  end
  if #left > 0 then redis.call('HSET', events, list, table.concat(left)) else redis.call('HDEL', events, list) end
end
-- Putting an event on the schedule and taking it off. What is there is asked by functions, for a commit has to see what
-- those before in the same step will have made of it: `score` of a member of a sorted set, `value` of a field of a hash.

-- Whether both say the same of this. What other hands have spoilt is not told apart.
local function alike(kept, fields, what) return not kept or says(kept, what) == says(fields, what) end

-- The name an event is on the schedule under, when it is due, and what is kept of it; of one that is not there the name it
-- is to have.
local function place_of(scheduled, events, id, which, fields, score, value)
  local function look_for(name)
    local due = score(scheduled, name)
    return due, due and value(events, name)
  end
  local name = name_of(which, id)
  local due, packed = look_for(name)
  if packed then return name, due, packed end
  if not stands_alone(id) then return name end
  due, packed = look_for(id)
  if not packed then return id end
  local kept = fields_of(packed)
  if alike(kept, fields, 'type') and alike(kept, fields, 'source') then return id, due, packed end
  return name
end

-- Whether what is kept of an event is this one, by the letter.
local function is_the_same(packed, fields)
  local kept = fields_of(packed)
  for _, what in ipairs({ 'data', 'datacontenttype', 'schemaversion' }) do
    if not alike(kept, fields, what) then return false end
  end
  return true
end

-- The list of those that have an id, with this one.
local function listed(others, which)
  for other in string.gmatch(others, WHICH) do
    if other == which then return nil end
  end
  return others .. which
end

-- Events of one due time come in the order in which they were scheduled. The first of them has its due time as its score;
-- each one behind it a little more, by less than half a millisecond in all, for a score is rounded where it is told. A
-- double has room for 2,048 of them today. The first 1,024 have a score each. Behind that ROOM of them share one, and
-- what is kept of those has a second string behind it, by which add_due puts them in order. Earlier releases pass over it.
-- Every score is a whole number of units: nothing is rounded on its way through Lua.
local SHARED, ROOM = 0.25, 512
local turns = 0
-- Answers the score, and what is to stand behind what is kept. Whoever may not look puts it on among those of its time.
local function turn_for(scheduled, due)
  if not redis.acl_check_cmd('ZREVRANGEBYSCORE', scheduled, '1', '1') or not redis.acl_check_cmd('ZCOUNT', scheduled, '1', '1') then
    return due, ''
  end
  local at, unit, top = tonumber(due), 1 / 4096, 2 ^ 41
  while at >= top do unit, top = unit * 2, top * 2 end
  local last = redis.call('ZREVRANGEBYSCORE', scheduled, string.format('(%.17g', at + 0.5), due, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if not last then return due, '' end
  local part = tonumber(last) - at
  local is_full = part < SHARED or redis.call('ZCOUNT', scheduled, last, last) >= ROOM
  if is_full and part + unit < 0.5 then part = part + unit end
  if part < SHARED then return string.format('%.17g', at + part), '' end
  turns = turns + 1
  local t = redis.call('TIME')
  return string.format('%.17g', at + part), cmsgpack.pack(string.format('%012d%06d%06d', t[1], t[2], turns))
end

-- Puts an event on. Answers the error if the first write is refused; none behind it is.
local function put_on(call, scheduled, events, id, which, name, due, packed)
  local score, behind = turn_for(scheduled, due)
  if name ~= id then
    local all = listed(redis.call('HGET', events, '\0i' .. id) or '', which)
    local done = all and call('HSET', events, '\0i' .. id, all)
    if type(done) == 'table' then return done.err end
  end
  local done = call('HSET', events, name, packed .. behind)
  if type(done) == 'table' then return done.err end
  redis.call('ZADD', scheduled, score, name)
end

-- The names of those on the schedule that are meant by an id, and by which one it is, its type and its source, if that is
-- said.
local function meant(scheduled, events, id, which, event_type, source, score, value)
  local found = {}
  local function look_for(name, its)
    if (which == '' or its == which) and score(scheduled, name) then found[#found + 1] = name end
  end
  if stands_alone(id) then
    -- What other hands have spoilt goes by its id.
    local kept = which ~= '' and fields_of(value(events, id) or nil)
    local is_it = not kept or says(kept, 'type') == event_type and says(kept, 'source') == source
    look_for(id, is_it and which or nil)
  end
  for its in string.gmatch(value(events, '\0i' .. id) or '', WHICH) do look_for(name_of(its, id), its) end
  return found
end
-- Whether this user may run a command on a key. A command is always given some arguments, as Valkey does not check that
-- they are there before it looks for keys among them; of these all arguments are keys.
local keys_alone = { DEL = true, EXISTS = true, TYPE = true }
local function may_on(command, key)
  local name, sub = string.match(command, '^(%u+)|?(%u*)$')
  if keys_alone[name] then return redis.acl_check_cmd(name, key) end
  if sub ~= '' then return redis.acl_check_cmd(name, sub, key, '1', '1', '1') end
  return redis.acl_check_cmd(name, key, '1', '1', '1')
end
-- A right that is missing is to be met before a script's first write, and not in the middle. Takes keys and the commands
-- on each, with a space between two. Answers the error, or nothing.
local function lacks(...)
  local needs = { ... }
  for i = 1, #needs, 2 do
    for command in string.gmatch(needs[i + 1], '%S+') do
      if not may_on(command, needs[i]) then
        return redis.error_reply('NOPERM this user may not ' .. command .. ' ' .. needs[i])
      end
    end
  end
end
-- Whether a partition of a topic is sealed, by an entry of the highest id: its topic has grown, nothing can be added to it,
-- and what is new belongs elsewhere. Of who may not look it counts as not sealed: the write itself is refused then.
local sealed = {}
local function is_sealed(key)
  if sealed[key] ~= nil then return sealed[key] end
  if not string.find(key, '^{.+:[%d.]+}$') then
    sealed[key] = false
  else
    local seal = '18446744073709551615-18446744073709551615'
    local found = redis.pcall('XRANGE', key, seal, seal)
    sealed[key] = not found.err and #found > 0
  end
  return sealed[key]
end
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
