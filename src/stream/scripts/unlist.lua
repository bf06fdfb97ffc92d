-- Forgets entries that are said to wait for a worker that can handle them, and wait no more: buried, say, or deleted by hand.
-- KEYS: failures, waiting
-- ARGV: cursor, about how many to look at
-- Answers: the next cursor
local scan = redis.call('ZSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
for i = 1, #scan[2], 2 do
  local member = scan[2][i]
  local record = redis.call('HGET', KEYS[1], string.match(member, '([^:]*)$')) or ''
  if not string.match(record, '^%d+ %d+ %d+ %S %? ') then redis.call('ZREM', KEYS[2], member) end
end
return scan[1]
