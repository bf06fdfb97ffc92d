-- Looks at entries that came as new ones though the group had read that far before: it was set back, or made anew below.
-- The delivery has set their counts to one, and taken them from whoever had them.
-- Behind: common/known
-- KEYS: stream, retry, failures
-- ARGV: group, me, then ids
-- Answers a list, for each: {'new'}; {'parked'}: it waits for its due time as it did; {'again', count, record}: it
--       goes on at this count; {'gone'}: it is not with us.
--       Then, if nothing is parked nor has failed, how far the group is now, and the last id that anybody has pending
local stream, group, me, out = KEYS[1], ARGV[1], ARGV[2], {}
local parked = redis.call('ZCARD', KEYS[2]) -- WRONGTYPE surfaces before the first write
local failed = redis.call('HLEN', KEYS[3])
for a = 3, #ARGV do
  local id = ARGV[a]
  local p = redis.call('XPENDING', stream, group, id, id, 1)
  if #p == 0 or p[1][2] ~= me or p[1][4] ~= 1 then
    out[#out + 1] = { 'gone' }
  else
    local what, count, record = goes_on(stream, group, me, KEYS[2], KEYS[3], id)
    out[#out + 1] = { what, count, record }
  end
end
if parked > 0 or failed > 0 then return { out } end
local pending = redis.call('XPENDING', stream, group)
-- Without the right to ask it is not known.
local groups = redis.pcall('XINFO', 'GROUPS', stream)
for _, info in ipairs(groups.err and {} or groups) do
  local of = {}
  for i = 1, #info, 2 do of[info[i]] = info[i + 1] end
  if of.name == group then return { out, of['last-delivered-id'], pending[3] or '0-0' } end
end
return { out }
