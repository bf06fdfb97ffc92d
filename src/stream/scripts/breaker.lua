-- What the group knows of a circuit breaker that is not closed, by the server's clock: until when it is open, and who
-- sends the probes after that, and how long others wait for it.
-- KEYS: breakers (hash)
-- ARGV: look; or open, breaker, ms that it is open; or probe, breaker, worker, ms that others are to wait for it;
--       or close, breaker
-- Answers: look: breaker and ms left (0 where it waits for probes), of each
--          else what it is for this worker (open|taken|granted|closed), and ms
local key, step, field = KEYS[1], ARGV[1], 'breaker:' .. (ARGV[2] or '')
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function ms(number) return string.format('%.0f', number) end
-- A breaker: until when it is open, who may send the probes and until when others wait for it, how long it opens for.
local function read(text)
  local till, prober, right, lasts = string.match(text or '', '^(%d+) (%S+) (%d+) (%d+)$')
  return tonumber(till), prober, tonumber(right), tonumber(lasts)
end
-- What lies further ahead than it opens for was noted before the clock was set back: it is open from now on.
local function bounded(field, till, prober, right, lasts)
  if till - now <= lasts then return till end
  till = now + lasts
  redis.pcall('HSET', key, field, table.concat({ ms(till), prober, ms(right), ms(lasts) }, ' '))
  return till
end

if step == 'look' then
  local out, old, all = {}, {}, redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local name, till, prober, right, lasts = string.match(all[i], '^breaker:(.*)$'), read(all[i + 1])
    till = name and till and bounded(all[i], till, prober, right, lasts)
    if name and till and now - till > 86400000 then
      -- Nobody has had a call for it in a day: it says nothing any more.
      old[#old + 1] = all[i]
    elseif name and till then
      out[#out + 1], out[#out + 2] = name, ms(math.max(till - now, 0))
    end
  end
  for _, name in ipairs(old) do redis.pcall('HDEL', key, name) end
  return out
end

local till, prober, right, lasts = read(redis.call('HGET', key, field))
if step == 'open' then
  redis.call('HSET', key, field, ms(now + ARGV[3]) .. ' - 0 ' .. ARGV[3])
  return { 'open', ARGV[3] }
elseif step == 'close' or not till then
  redis.call('HDEL', key, field)
  return { 'closed', '0' }
end
till = bounded(field, till, prober, right, lasts)
if now < till then
  return { 'open', ms(till - now) }
elseif prober ~= ARGV[3] and now < right and right - now <= tonumber(ARGV[4]) then
  return { 'taken', ms(right - now) }
end
redis.call('HSET', key, field, table.concat({ ms(till), ARGV[3], ms(now + ARGV[4]), ms(lasts) }, ' '))
return { 'granted', ARGV[4] }
