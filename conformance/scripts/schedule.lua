-- What waits for its time, and under which names. An event is on the schedule under its id. Others of the same id, of
-- another source or type, have names of their own, '\0m<which event><its id>', and '\0i<id>' among the events has the
-- list of those: 32 digits each. An id that begins like that itself never stands alone. What is kept of an event is its
-- fields, packed, and nothing else: workers of other groups may be of another release.
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
-- Keeps an event that is to be added to its stream later. One that is kept already stays as it is.
-- Behind: common/scheduled, common/rights
-- KEYS: stream, scheduled, events
-- ARGV: the event's id, which event it is, its due time (ms) or '', how long it has from now (ms) where there is none,
--       whether its replicas are waited for (0|1), then its fields
-- Answers: due time (ms), whether it is new (0|1), the packed fields of what is kept where its data is written otherwise,
--       or false, whether anything was written (0|1)
local stream, scheduled, events, id, which = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
redis.call('XLEN', stream) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', events)
local no = lacks(scheduled, 'ZADD', events, 'HSET')
if no then return no end
local fields = {}
for a = 6, #ARGV do fields[#fields + 1] = ARGV[a] end

-- When it is due that has this name, and what is kept of it.
local function look(name)
  local due = redis.call('ZSCORE', scheduled, name)
  return due, due and redis.call('HGET', events, name)
end
-- Whether both say the same of this. What other hands have spoilt is not told apart.
local function alike(kept, what) return not kept or says(kept, what) == says(fields, what) end

local name = name_of(which, id)
local due, packed = look(name)
local is_it, known_as = packed, name
if not packed and stands_alone(id) then
  due, packed = look(id)
  local kept = fields_of(packed)
  is_it = packed and alike(kept, 'type') and alike(kept, 'source')
  if packed then known_as = id else name = id end
end
if is_it then
  local kept, same = fields_of(packed), true
  for _, what in ipairs({ 'data', 'datacontenttype', 'schemaversion' }) do same = same and alike(kept, what) end
  -- WAIT covers what its own connection wrote: see publish_once.
  local again = ARGV[5] == '1' and redis.pcall('HSET', events, known_as, packed)
  return { string.format('%.0f', due), 0, not same and packed, type(again) == 'number' and 1 or 0 }
end

-- A partition is sealed by an entry of the highest id: its topic has grown, and what is new belongs elsewhere.
if string.find(stream, '^{.+:[%d.]+}$') then
  local seal = '18446744073709551615-18446744073709551615'
  -- pcall: who may not look schedules it all the same, and a worker takes it to where it belongs.
  local found = redis.pcall('XRANGE', stream, seal, seal)
  if not found.err and #found > 0 then
    return redis.error_reply('ERR The stream has exhausted the last possible ID, it is sealed')
  end
end

due = ARGV[3]
if due == '' then
  local t = redis.call('TIME')
  due = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[4])
end
if name ~= id then
  local list = '\0i' .. id
  local others = redis.call('HGET', events, list) or ''
  local listed = false
  for other in string.gmatch(others, WHICH) do listed = listed or other == which end
  if not listed then redis.call('HSET', events, list, others .. which) end
end
redis.call('HSET', events, name, cmsgpack.pack(fields))
redis.call('ZADD', scheduled, due, name)
return { due, 1, false, 1 }
