-- The deliveries of what a consumer has pending between two ids, at most so many: asked of a lot at once, for its entries
-- stand side by side as a rule. What is not among them is asked for alone.
local function pending_between(stream, group, from, to, most, consumer)
  local counts = {}
  for _, p in ipairs(redis.call('XPENDING', stream, group, from, to, most, consumer)) do counts[p[1]] = p[4] end
  return counts
end
