-- Guards: which entries came to an end of late, and until when that is to be known, so that what is repeated of a step
-- before, or comes late, finds it where the entry is with nobody and there is no delivery count to tell. Whoever speaks
-- of an entry that is nobody's has it under a lease that ran then, or repeats for 30 s after the first request whose
-- answer it missed (OWN_FOR in inflight.rs), and each request says until when it may. So a guard lasts for a lease and 30 s,
-- and a minute at least; and for an hour where what came to its end was nobody's, which is rare: its handler may run
-- elsewhere as well, for as long as it takes, and has no lease there. What is older goes with the next ones, and in the
-- end with the key.
local function is_guarded(guards, id, now)
  local till = redis.call('ZSCORE', guards, id)
  return till and tonumber(till) > now
end
-- Whatever stands in the way: what was done is done. Who depends on it looks before its first write, behind which nothing
-- is refused for want of memory. `me` is a consumer's name, which tells its lease.
local function guard(guards, ids, now, me, was_nobodys)
  if #ids == 0 then return end
  local lasts = math.max(60000, (tonumber(string.match(me, '^sh%d+%-(%d+)%-')) or 0) + 30000)
  if was_nobodys then lasts = math.max(lasts, 3600000) end
  local args = { 'ZADD', guards }
  for _, id in ipairs(ids) do
    args[#args + 1] = string.format('%.0f', now + lasts)
    args[#args + 1] = id
  end
  redis.pcall(unpack(args))
  local old = redis.pcall('ZCOUNT', guards, '-inf', string.format('%.0f', now))
  if type(old) == 'number' and old > 0 then
    redis.pcall('ZREMRANGEBYRANK', guards, 0, math.min(old, 100 + 2 * #ids) - 1)
  end
  local left = redis.pcall('PTTL', guards)
  if type(left) == 'number' and left < lasts then redis.pcall('PEXPIRE', guards, lasts) end
end
