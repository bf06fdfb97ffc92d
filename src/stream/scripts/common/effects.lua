-- What effects have in common, whoever does them: whether one can be done, looked at before anything is written.
local holds = { SET = 'string', INCRBY = 'string', HSET = 'hash', HDEL = 'hash', HINCRBY = 'hash', ZADD = 'zset',
  ZREM = 'zset', SADD = 'set', SREM = 'set' }
local allowed = {}
local function may(command, ...)
  if allowed[command] == nil then allowed[command] = redis.acl_check_cmd(command, ...) end
  return allowed[command]
end
-- As Redis reads them, and no more than a script can compute with exactly.
local function integer(text)
  local n = (text == '0' or string.match(text, '^%-?[1-9]%d*$')) and #text < 18 and tonumber(text)
  return n and n > -9007199254740992 and n < 9007199254740992 and n or nil
end

-- What is there, and what the effects before will have made of it.
local kinds, cells, wiped
local function kind(key)
  if not kinds[key] then kinds[key] = redis.call('TYPE', key).ok end
  return kinds[key]
end
local function cells_of(key)
  if not cells[key] then cells[key] = {} end
  return cells[key]
end
local function current(key, field)
  local of = cells_of(key)
  if of[field] == nil then
    local is, value = kind(key), false
    if not wiped[key] then
      if is == 'string' then value = redis.call('GET', key)
      elseif is == 'hash' then value = redis.call('HGET', key, field)
      elseif is == 'zset' then value = redis.call('ZSCORE', key, field)
      elseif is == 'set' then value = redis.call('SISMEMBER', key, field) == 1 and field
      elseif is ~= 'none' then value = is end
    end
    of[field] = value
  end
  return of[field]
end

-- Looks whether an effect can be done. Answers what stands in the way.
local function look(e, place)
  local want, is = holds[e.command], kind(e.key)
  local field, number, new = '', nil, e.args[1] or false
  if e.command == 'HSET' then field, new = e.args[1], e.args[2]
  elseif e.command == 'HINCRBY' then field, number = e.args[1], e.args[2]
  elseif e.command == 'ZADD' then field, new = e.args[2], e.args[1]
  elseif e.command == 'SADD' then field = e.args[1]
  elseif e.command == 'INCRBY' then number = e.args[1]
  elseif e.command ~= 'SET' and e.command ~= 'DEL' then field, new = e.args[1], false end
  local name = e.command .. ' ' .. e.key .. (field == '' and '' or ' ' .. field)
  if want and is ~= 'none' and is ~= want then return { 'failed', name .. ': the key holds a ' .. is } end
  if not may(e.command, e.key, unpack(e.args)) then return { 'failed', name .. ': the ACL of this user lacks it' } end
  if e.presence ~= '' or number then
    if e.presence == 'equals' and not want and is ~= 'none' and is ~= 'string' then
      return { 'failed', name .. ': the key holds a ' .. is .. ', which equals no value' }
    end
    local was
    if not want and is ~= 'none' and is ~= 'string' then was = is else was = current(e.key, field) end
    local refused = { 'refused', place, was }
    if e.presence == 'absent' and was then return refused end
    if e.presence == 'exists' and not was then return refused end
    if e.presence == 'equals' and was ~= e.value then return refused end
    if number then
      local from = integer(was or '0')
      if not from then return { 'failed', name .. ': there is no whole number below 2^53' } end
      local sum = from + number
      new = string.format('%.0f', sum)
      if not integer(new) then return { 'failed', name .. ': the sum is not below 2^53' } end
      if e.least ~= '' and sum < tonumber(e.least) then return refused end
      if e.most ~= '' and sum > tonumber(e.most) then return refused end
    end
  end
  if want then
    kinds[e.key] = want
    cells_of(e.key)[field] = new
  else
    kinds[e.key], cells[e.key], wiped[e.key] = 'none', {}, true
  end
end

-- Answers the error of a write that was refused: where memory is short the first one is, and none after it.
local function write(...)
  local answer = redis.pcall(...)
  return type(answer) == 'table' and answer.err
end
