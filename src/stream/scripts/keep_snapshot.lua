-- Keeps the state of an aggregate as of one of its events, in place of an older one.
-- Behind: common/ids
-- KEYS: aggregate, its snapshot
-- ARGV: version, id of the event at that version, schema version of the state, state
-- Answers: is it kept (0|1)
--
-- A newer one of the same schema stays, unless its event is not there any more: then it is of an aggregate that is gone.
local aggregate, snapshot = KEYS[1], KEYS[2]
local version, event, schema = ARGV[1], ARGV[2], ARGV[3]

local function is_there(version, event)
  local id = version .. '-0'
  local found = redis.pcall('XRANGE', aggregate, id, id)
  local fields = not found.err and found[1] and found[1][2] or {}
  for i = 1, #fields, 2 do
    if fields[i] == 'id' then return fields[i + 1] == event end
  end
  return false
end

if not is_there(version, event) then return 0 end
local kept = redis.pcall('HMGET', snapshot, 'version', 'event', 'schema')
if kept.err then
  redis.call('DEL', snapshot) -- it is something else
elseif kept[1] and kept[3] == schema and string.find(kept[1], '^%d+$') and higher(kept[1], version)
    and is_there(kept[1], kept[2]) then
  return 0
end
redis.call('HSET', snapshot, 'version', version, 'event', event, 'schema', schema, 'state', ARGV[4])
return 1
