-- Time passes in a test: what expires does so by as much sooner, and what is pending has been idle for as much longer. All
-- keys of the server are the test's.
-- ARGV: what time it is now (ms), by how much (ms) later than before
local by, before, noted = tonumber(ARGV[2]), redis.call('GET', 'streamhand:test:time'), {}
redis.call('SET', 'streamhand:test:time', ARGV[1])
if not before then return 1 end
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 and left <= by then
    redis.call('DEL', key)
  elseif left > by then
    redis.call('PEXPIRE', key, string.format('%.0f', left - by))
  end
  local groups = redis.call('TYPE', key).ok == 'stream' and redis.call('XINFO', 'GROUPS', key) or {}
  for _, info in ipairs(groups) do
    local group, from = info[2], '-'
    while from do
      local pending = redis.call('XPENDING', key, group, from, '+', 1000)
      for _, p in ipairs(pending) do
        local is = table.concat({ key, group, p[1], p[2], p[4] }, ' ')
        noted[#noted + 1] = { is, redis.call('HGET', 'streamhand:test:since', is) or before }
        -- XCLAIM forgets what the stream has no more.
        if #redis.call('XRANGE', key, p[1], p[1]) == 1 then
          redis.call('XCLAIM', key, group, p[2], 0, p[1], 'IDLE', string.format('%.0f', p[3] + by), 'JUSTID')
        end
      end
      from = #pending == 1000 and '(' .. pending[1000][1] or nil
    end
  end
end
redis.call('DEL', 'streamhand:test:since')
for _, of in ipairs(noted) do redis.call('HSET', 'streamhand:test:since', of[1], of[2]) end
return 1
