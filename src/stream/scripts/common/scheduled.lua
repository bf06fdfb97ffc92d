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
