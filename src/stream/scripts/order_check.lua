-- Behind each read of a stream whose events have an order: is it still the worker's, and has anybody else something
-- pending of it? That may be what an owner before read late, and comes before what was just read.
-- KEYS: stream, order
-- ARGV: group, worker, number of its lease
-- Answers: is it still the worker's (0|1), entries pending with others
local is = redis.call('HMGET', KEYS[2], 'owner', 'epoch')
local others = 0
for _, of in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1])[4] or {}) do
  local who = of[1]
  if who ~= ARGV[2] and who ~= ARGV[2] .. '!' and who ~= '(parked)' then others = others + tonumber(of[2]) end
end
return { is[1] == ARGV[2] and is[2] == ARGV[3] and 1 or 0, others }
