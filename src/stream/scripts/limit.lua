-- Sets what a handler of a group is limited to, in place of what was set before; or takes that back.
-- KEYS: paused
-- ARGV: what the names of such fields end with (:<type>), the new field's name or '', what is noted of it
-- Answers: how many were taken back
local key, ending = KEYS[1], ARGV[1]
local gone = {}
for _, field in ipairs(redis.call('HKEYS', key)) do
  local is_limit, of = string.match(field, '^(limit:%d+:[^:]*:[^:]*)(:.*)$')
  if is_limit and of == ending then gone[#gone + 1] = field end
end
if ARGV[2] ~= '' then redis.call('HSET', key, ARGV[2], ARGV[3]) end
local count = 0
for _, field in ipairs(gone) do
  if field ~= ARGV[2] then count = count + redis.call('HDEL', key, field) end
end
return count
