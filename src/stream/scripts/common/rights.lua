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
