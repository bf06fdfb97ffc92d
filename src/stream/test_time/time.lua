-- What time it is in a test, as TIME tells it: a key says so, in ms. Without the key it is no test.
local function test_time()
  local ms = redis.call('GET', 'streamhand:test:time')
  if not ms then return redis.call('TIME') end
  return { string.sub(ms, 1, -4), string.sub(ms, -3) .. '000' }
end
