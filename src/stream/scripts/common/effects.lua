-- What effects have in common, whoever does them: whether one can be done, looked at before anything is written. What was
-- found out about keys is kept from one event to the next, for a script that says so (see next_event).
local holds = { SET = 'string', INCRBY = 'string', HSET = 'hash', HDEL = 'hash', HINCRBY = 'hash', ZADD = 'zset',
  ZREM = 'zset', SADD = 'set', SREM = 'set' }
-- Those that may leave a key empty, and it is gone then.
local empties = { DEL = true, HDEL = true, ZREM = true, SREM = true }
local allowed = {}
local call, try = redis.call, redis.pcall

-- What keys hold, by what was asked and by what was looked at since; what effects before, of the same event, will have made
-- of a key's fields, and which keys they will have deleted; numbers that were put there, as such.
local kinds, cells, wiped, numbers = {}, {}, {}, {}
local keeps_cells = true
local function kind(key)
  local is = kinds[key]
  if not is then
    is = call('TYPE', key).ok
    kinds[key] = is
  end
  return is
end
-- Many keys in few calls, before anything is done: those that are met once are new ones, as a rule.
local function look_at_keys(from)
  local times, once, n = {}, {}, 0
  for k = from, #KEYS - 1 do
    local key = KEYS[k]
    times[key] = (times[key] or 0) + 1
  end
  for key, of in pairs(times) do
    if of == 1 then
      n = n + 1
      once[n] = key
    end
  end
  for at = 1, n, 1000 do
    local upto = math.min(at + 999, n)
    if call('EXISTS', unpack(once, at, upto)) == 0 then
      for i = at, upto do kinds[once[i]] = 'none' end
    end
  end
end
-- The next event begins. Whether its effects touch some key twice: else none asks what those before will have made of it.
local function next_event(is_twice)
  keeps_cells = is_twice
  if next(cells) then cells = {} end
  if next(wiped) then wiped = {} end
end
-- What was looked at was not done.
local function not_done() kinds, numbers = {}, {} end
-- This was done.
local function written(command, key)
  if empties[command] then kinds[key] = nil end
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
      if is == 'string' then value = call('GET', key)
      elseif is == 'hash' then value = call('HGET', key, field)
      elseif is == 'zset' then value = call('ZSCORE', key, field)
      elseif is == 'set' then value = call('SISMEMBER', key, field) == 1 and field
      elseif is ~= 'none' then value = is end
    end
    of[field] = value
  end
  return of[field]
end

-- As Redis reads them, and no more than a script can compute with exactly.
local function integer(text)
  local n = (text == '0' or string.match(text, '^%-?[1-9]%d*$')) and #text < 18 and tonumber(text)
  return n and n > -9007199254740992 and n < 9007199254740992 and n or nil
end

local function failed(why, command, key, field)
  return { 'failed', command .. ' ' .. key .. (field == '' and '' or ' ' .. field) .. ': ' .. why }
end

-- Looks at one that adds to a number.
local function look_at_number(place, command, key, field, by, presence, value, least, most)
  local of = numbers[key]
  local number, was = of and not keeps_cells and of[field], nil
  if number and presence ~= 'equals' then
    if presence == 'absent' then return { 'refused', place, string.format('%.0f', number) } end
  else
    was = current(key, field)
    if presence == 'absent' and was or presence == 'exists' and not was or presence == 'equals' and was ~= value then
      return { 'refused', place, was }
    end
    number = integer(was or '0')
    if not number then return failed('there is no whole number below 2^53', command, key, field) end
  end
  local sum = number + by
  if sum <= -9007199254740992 or sum >= 9007199254740992 then
    return failed('the sum is not below 2^53', command, key, field)
  end
  if least ~= '' and sum < tonumber(least) or most ~= '' and sum > tonumber(most) then
    if was == nil then was = string.format('%.0f', number) end
    return { 'refused', place, was }
  end
  if not of then
    of = {}
    numbers[key] = of
  end
  of[field] = sum
  if keeps_cells then cells_of(key)[field] = string.format('%.0f', sum) end
end

-- Looks whether an effect can be done, whose arguments are those of `args` from here to there. Answers what stands in the
-- way.
local function look_at_effect(place, command, key, args, from, to, presence, value, least, most)
  local want, is = holds[command], kind(key)
  local field, by, new = '', nil, args[from]
  if command == 'HSET' then field, new = new, args[from + 1]
  elseif command == 'HINCRBY' then field, by = new, args[from + 1]
  elseif command == 'ZADD' then field = args[from + 1]
  elseif command == 'SADD' then field = new
  elseif command == 'INCRBY' then by = new
  elseif command ~= 'SET' and command ~= 'DEL' then field, new = new, false end
  if is ~= want and want and is ~= 'none' then return failed('the key holds a ' .. is, command, key, field) end
  if allowed[command] == nil then allowed[command] = redis.acl_check_cmd(command, key, unpack(args, from, to)) end
  if not allowed[command] then return failed('the ACL of this user lacks it', command, key, field) end
  if by then
    local no = look_at_number(place, command, key, field, by, presence, value, least, most)
    if no then return no end
    kinds[key] = want
    return
  end
  if presence ~= '' then
    if presence == 'equals' and not want and is ~= 'none' and is ~= 'string' then
      return failed('the key holds a ' .. is .. ', which equals no value', command, key, field)
    end
    local was
    if not want and is ~= 'none' and is ~= 'string' then was = is else was = current(key, field) end
    if presence == 'absent' and was or presence == 'exists' and not was or presence == 'equals' and was ~= value then
      return { 'refused', place, was }
    end
  end
  if numbers[key] then numbers[key] = nil end
  if want then
    if is ~= want then kinds[key] = want end
    if keeps_cells then cells_of(key)[field] = new or false end
  else
    kinds[key], cells[key], wiped[key] = 'none', {}, true
  end
end

local function look(e, place)
  return look_at_effect(place, e.command, e.key, e.args, 1, #e.args, e.presence, e.value, e.least, e.most)
end

-- Answers the error of a write that was refused: where memory is short the first one is, and none after it.
local function write(...)
  local answer = try(...)
  return type(answer) == 'table' and answer.err
end
