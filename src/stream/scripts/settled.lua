-- Whether a group has settled all of a stream that is sealed, and what may come before what is new of its subject.
-- Behind: common/ids
-- KEYS: stream, retry, held, again
-- ARGV: group
-- Answers: has it read to the seal with nothing pending or parked (0|1), dead letters that hold their subjects, replayed
--          entries that are not settled
local stream, seal, settled = KEYS[1], MAX .. '-' .. MAX, 0
local parked, held, again = redis.call('ZCARD', KEYS[2]), redis.call('HLEN', KEYS[3]), redis.call('XLEN', KEYS[4])
for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local of = {}
  for i = 1, #g, 2 do of[g[i]] = g[i + 1] end
  if of.name == ARGV[1] and of['last-delivered-id'] == seal and of.pending == 0 and parked == 0 then settled = 1 end
end
return { settled, held, again }
