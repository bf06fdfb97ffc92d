-- Runs of replays, in one hash: `last` (the number of the last one), `active` (the numbers of those that are not over),
-- `looked` (up to where dead letters were looked through for copies that died again), and of run 7 `7:what` (what it is to
-- do, as JSON), `7:state` (waiting|running|stopped|done), `7:at` (when it begins), `7:why` (it is stopped), `7:cursor`,
-- `7:driver` and `7:until` (who drives it, and until when nobody else does), `7:ended`, and its counts.

-- Whether somebody has the driver's seat. Nobody takes it for so long ahead, a few seconds: else the clock was set back.
local function is_driven(till, now)
  local left = (tonumber(till or '') or 0) - now
  return left > 0 and left <= 60000
end

-- A run that has begun or is to begin, and that nobody drives.
local function undriven(runs, now)
  local active = redis.pcall('HGET', runs, 'active')
  if type(active) ~= 'string' then return false end
  for n in string.gmatch(active, '%d+') do
    local is = redis.call('HMGET', runs, n .. ':state', n .. ':at', n .. ':until')
    if (is[1] == 'running' and not is_driven(is[3], now))
      or (is[1] == 'waiting' and tonumber(is[2] or 0) <= now) then return n end
  end
  return false
end

local function set_active(runs, n, is_active)
  local numbers = {}
  for other in string.gmatch(redis.call('HGET', runs, 'active') or '', '%d+') do
    if other ~= n then numbers[#numbers + 1] = other end
  end
  if is_active then numbers[#numbers + 1] = n end
  redis.call('HSET', runs, 'active', table.concat(numbers, ' '))
end

local function forget_run(runs, n)
  local names = {}
  for i, name in ipairs({ 'what', 'state', 'at', 'why', 'cursor', 'driver', 'until', 'ended', 'base', 'replayed', 'died',
    'succeeded', 'gone', 'began' }) do names[i] = n .. ':' .. name end
  redis.call('HDEL', runs, unpack(names))
end
