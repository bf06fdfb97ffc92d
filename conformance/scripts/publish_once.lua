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
-- Adds an event to its stream, unless it was added within the window.
-- Behind: common/rights
-- KEYS: stream, the event's mark
-- ARGV: the window in ms, a hash of the event's data, whether its replicas are waited for (0|1), then the fields
-- Answers: the entry's id, whether it is new (0|1), whether it was added with other data (0|1), whether anything was
--       written (0|1)
local stream, mark, data = KEYS[1], KEYS[2], ARGV[2]
local known = redis.pcall('GET', mark)
if known then
  local id, its
  if type(known) == 'string' then id, its = string.match(known, '^(%d+%-%d+) (%x+)$') end
  if id then
    -- WAIT covers what its own connection wrote: of what another one added long ago it would say nothing. So the mark is
    -- written as it is; replicas that have this have what was before it.
    local same = ARGV[3] == '1' and redis.pcall('SET', mark, known, 'KEEPTTL')
    return { id, 0, its ~= data and 1 or 0, same and not same.err and 1 or 0 }
  end
  if known.err and not string.find(known.err, 'WRONGTYPE') then return known end
  return redis.error_reply('WRONGTYPE ' .. mark .. ' holds something else than the mark of an event')
end
redis.call('XLEN', stream) -- WRONGTYPE surfaces before the first write
local no = lacks(stream, 'XADD', mark, 'SET')
if no then return no end
local id
if #ARGV > 7003 then
  -- Lua's unpack ends at some 8,000 values, so a very wide event travels as one field.
  local fields = {}
  for a = 4, #ARGV do fields[#fields + 1] = ARGV[a] end
  id = redis.call('XADD', stream, '*', 'streamhand.packed', cmsgpack.pack(fields))
else
  id = redis.call('XADD', stream, '*', unpack(ARGV, 4))
end
redis.call('SET', mark, id .. ' ' .. data, 'PX', ARGV[1])
return { id, 1, 0, 1 }
