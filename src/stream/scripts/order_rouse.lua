-- Looks at the first entries of subjects. What is parked only because another came before it is due now; what is pending
-- with nobody is done with, if it has been read.
-- Behind: common/ids, common/reading, common/behind
-- KEYS: stream, failures, retry
-- ARGV: group, what is noted of what only waits behind another, then ids
-- Answers: which of them are pending with nobody, how many are due now
local stream, failures, retry, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', failures)
local t = redis.call('TIME')
local now, gone, due, last = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)), {}, 0, nil
local function is_to_come(id)
  last = last or read_up_to(stream, group)
  return above(id, last) and #redis.call('XRANGE', stream, id, id) > 0
end
for i = 3, #ARGV do
  local id = ARGV[i]
  local p = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if not p then
    -- What was parked and is nobody's is brought back by its due time.
    if not redis.call('ZSCORE', retry, id) and not is_to_come(id) then gone[#gone + 1] = id end
  elseif p[2] == '(parked)' and waits_behind(failures, id, ARGV[2]) then
    redis.call('ZADD', retry, now, id)
    due = due + 1
  end
end
return { gone, due }
