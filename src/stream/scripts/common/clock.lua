-- What time it is, in ms; and whether that is as the caller expects, who counts with a clock that nobody sets. Where it
-- is not, the clock was set, or the request took long on its way: nothing is to go by ages then. What is expected is ''
-- where the caller has not seen the clock yet.
local function clock_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function is_off(now, expected, leeway)
  return (expected or '') ~= '' and math.abs(now - expected) > tonumber(leeway)
end
