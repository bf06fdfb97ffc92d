-- Says how many runs of a handler a worker may have at once, of those that its whole group may. Each worker's share stands for
-- a time; what a worker that is gone had is free then.
-- KEYS: permits (hash)
-- ARGV: who asks, how many the group may run, how many run here, how many are wanted (those among them), for how long (ms)
-- Answers: how many may run here: at least those that do
local key, me, most, running, wanted = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all, over, others, held = redis.call('HGETALL', key), {}, {}, 0
for i = 1, #all, 2 do
  local has, wants, till = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')
  if not till or tonumber(till) <= now then
    over[#over + 1] = all[i]
  elseif all[i] ~= me then
    held = held + has
    others[#others + 1] = { tonumber(has), tonumber(wants) }
  end
end
if #over > 0 then redis.call('HDEL', key, unpack(over, 1, math.min(#over, 1000))) end
-- Whoever has more than an equal part leaves what others want and do not have.
local fair = math.ceil(most / (#others + 1))
local cap = wanted
for _, other in ipairs(others) do
  if other[1] < math.min(other[2], fair) then cap = math.min(wanted, fair) break end
end
local may = math.max(running, math.min(cap, most - held))
if wanted == 0 and running == 0 then
  redis.call('HDEL', key, me)
else
  redis.call('HSET', key, me, string.format('%d %d %.0f', may, wanted, now + ARGV[5]))
  redis.call('PEXPIRE', key, string.format('%.0f', 2 * ARGV[5]))
end
return may
