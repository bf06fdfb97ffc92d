-- What time it is in a test, as TIME tells it: a key says so, in ms. Without the key it is no test.
local function test_time()
  local ms = redis.call('GET', 'streamhand:test:time')
  if not ms then return redis.call('TIME') end
  return { string.sub(ms, 1, -4), string.sub(ms, -3) .. '000' }
end
-- What is pending, with how long it has been idle by the test's time. Since when is noted whenever time passes: what is not
-- noted was delivered since then.
local function test_pending(stream, group, ...)
  local pending = redis.call('XPENDING', stream, group, ...)
  local ms = select('#', ...) > 0 and redis.call('GET', 'streamhand:test:time')
  if not ms then return pending end
  for _, p in ipairs(pending) do
    local since = redis.call('HGET', 'streamhand:test:since', table.concat({ stream, group, p[1], p[2], p[4] }, ' '))
    p[3] = since and ms - since or 0
  end
  return pending
end
