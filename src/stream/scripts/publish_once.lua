-- Adds an event to its stream, unless it was added within the window.
-- KEYS: stream, the event's mark
-- ARGV: the window in ms, then the fields
-- Answers: the entry's id, whether it is new (0|1)
local stream, mark = KEYS[1], KEYS[2]
local known = redis.pcall('GET', mark)
if known then
  if type(known) == 'string' and string.match(known, '^%d+%-%d+$') then return { known, 0 } end
  if known.err and not string.find(known.err, 'WRONGTYPE') then return known end
  return redis.error_reply('WRONGTYPE ' .. mark .. ' holds something else than the mark of an event')
end
redis.call('XLEN', stream) -- WRONGTYPE surfaces before the first write
local id
if #ARGV > 7001 then
  -- Lua's unpack ends at some 8,000 values, so a very wide event travels as one field.
  local fields = {}
  for a = 2, #ARGV do fields[#fields + 1] = ARGV[a] end
  id = redis.call('XADD', stream, '*', 'streamhand.packed', cmsgpack.pack(fields))
else
  id = redis.call('XADD', stream, '*', unpack(ARGV, 2))
end
redis.call('SET', mark, id, 'PX', ARGV[1])
return { id, 1 }
