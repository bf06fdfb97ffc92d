-- Whether a group has settled all of a stream that is sealed, and what may come before what is new of its subject.
-- Behind: common/ids
-- KEYS: stream, retry, held, again
-- ARGV: group
-- Answers: has it read all with nothing pending or parked (0|1), is the stream sealed (0|1), dead letters that hold their
--          subjects, replayed entries that are not settled
local stream, settled, sealed = KEYS[1], 0, 0
if redis.call('EXISTS', stream) == 0 then return { 0, 0, 0, 0 } end
local about = redis.call('XINFO', 'STREAM', stream)
for i = 1, #about, 2 do
  if about[i] == 'last-generated-id' and about[i + 1] == MAX .. '-' .. MAX then sealed = 1 end
end
local parked, held, again = redis.call('ZCARD', KEYS[2]), redis.call('HLEN', KEYS[3]), redis.call('XLEN', KEYS[4])
for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local of = {}
  for i = 1, #g, 2 do of[g[i]] = g[i + 1] end
  if of.name == ARGV[1] and of.pending == 0 and parked == 0 then
    -- The entry that seals it may have been trimmed.
    local next_id = just_above(of['last-delivered-id'])
    local is_read = not next_id or #redis.call('XRANGE', stream, next_id, '+', 'COUNT', 1) == 0
    settled = is_read and 1 or 0
  end
end
return { settled, sealed, held, again }
