-- The leases of all that a consumer holds begin now.
-- KEYS: stream
-- ARGV: group, consumer
local from = '-'
while from do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], from, '+', 1000, ARGV[2])
  for _, p in ipairs(pending) do
    local is = table.concat({ KEYS[1], ARGV[1], p[1], p[2], p[4] }, ' ')
    redis.call('HDEL', 'streamhand:test:since', is)
    -- XCLAIM forgets what the stream has no more.
    if #redis.call('XRANGE', KEYS[1], p[1], p[1]) == 1 then
      redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, p[1], 'IDLE', 0, 'JUSTID')
    end
  end
  from = #pending == 1000 and '(' .. pending[1000][1] or nil
end
return 1
