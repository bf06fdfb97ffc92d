-- Looks at the first entry that is pending with this consumer and not held by it, without handing it over: the server
-- may let no answer through that is so large. Only reads.
-- Behind: common/ids
-- KEYS: stream
-- ARGV: group, consumer, then every held id
-- Answers: id, delivery count, about how many bytes it takes on its way (0 where it is gone); or nil where there is none
local stream, group, me = KEYS[1], ARGV[1], ARGV[2]
local held, from = {}, '-'
for a = 3, #ARGV do held[ARGV[a]] = true end
while true do
  local pending = redis.call('XPENDING', stream, group, from, '+', 1000, me)
  for _, p in ipairs(pending) do
    if not held[p[1]] then
      local entry, bytes = redis.call('XRANGE', stream, p[1], p[1])[1], 0
      -- Each string travels with its length before it.
      for _, v in ipairs(entry and entry[2] or {}) do bytes = bytes + #v + 8 end
      return { p[1], p[4], bytes }
    end
  end
  from = #pending == 1000 and just_above(pending[1000][1])
  if not from then return false end
end
