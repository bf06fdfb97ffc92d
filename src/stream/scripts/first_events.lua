-- Finds of each aggregate the first event behind a position. Only reads.
-- Behind: common/ids
-- KEYS: the aggregates
-- ARGV: the position
-- Answers for each aggregate: {version, position, version of the last event}, or nothing where there is no such event.
--       {1, '0-0', 1} where it holds other entries: who reads on there finds out what. Its type where it is no stream.
local after = ARGV[1]

-- The version and the position of an entry; nothing where it is no aggregate's, which no version beyond 2^53 is.
local function event(entry)
  local version = entry and exact(string.match(entry[1], '^(%d+)%-0$') or MAX)
  if not version then return nil end
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'position' then
      return parts(entry[2][i + 1]) and version, entry[2][i + 1]
    end
  end
end

local function find(key)
  local newest = redis.pcall('XREVRANGE', key, '+', '-', 'COUNT', 1)
  if newest.err then return redis.call('TYPE', key).ok end
  local last, last_position = event(newest[1])
  if not last then
    if redis.call('XLEN', key) == 0 then return false end
    return { 1, '0-0', 1 }
  end
  if not above(last_position, after) then return false end
  -- Of an aggregate's events both versions and positions go up. If some are missing what is found may be behind them;
  -- its version is then that of the first one missing.
  local low, high, position = 1, last, last_position
  if after == '0-0' then
    high = 1
    position = select(2, event(redis.call('XRANGE', key, '1-0', '+', 'COUNT', 1)[1]))
  end
  while low < high do
    local middle = math.floor((low + high) / 2)
    local version, at = event(redis.call('XRANGE', key, string.format('%.0f-0', middle), '+', 'COUNT', 1)[1])
    if not version then return { 1, '0-0', 1 } end
    if above(at, after) then
      high, position = middle, at
    else
      low = math.max(version, middle) + 1
    end
  end
  if not position then return { 1, '0-0', 1 } end
  return { low, position, last }
end

local answer = {}
for i, key in ipairs(KEYS) do answer[i] = find(key) end
return answer
