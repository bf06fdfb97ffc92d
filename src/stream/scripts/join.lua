-- Makes sure that the group is there and that this worker speaks its protocol. A group that was there before
-- (its position is known) is made anew just below the lowest its workers may not have settled.
-- Behind: common/ids
-- KEYS: stream, position, protocol, failures, retry
-- ARGV: group, where a new group begins (0|$), protocol number
-- Answers: joined|created|restored|foreign, and the id the group begins at or the protocol number
local stream, position, protocol, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local spoken = redis.call('GET', protocol)
if spoken and tonumber(spoken) > tonumber(ARGV[3]) then return { 'foreign', spoken } end
local known = redis.call('HGETALL', position)
local kind = redis.call('TYPE', stream).ok
if kind == 'stream' then
  for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    for i = 1, #g, 2 do
      if g[i] == 'name' and g[i + 1] == group then
        if spoken ~= ARGV[3] then redis.call('SET', protocol, ARGV[3]) end
        return { 'joined', '' }
      end
    end
  end
end

local begin, how = ARGV[2], 'created'
local last
for i = 1, #known, 2 do if known[i] == 'last' then last = known[i + 1] end end
if last then
  how, begin = 'restored', last
  -- Whoever is alive and whoever is not can't be told now: below what any of them may still have had.
  for i = 1, #known, 2 do
    local word, id = string.match(known[i + 1], '^(%S+) (%d+%-%d+)$')
    if word == 'from' then id = just_below(id) or '0-0' end
    if id and above(begin, id) then begin = id end
  end
  local newest = '0-0'
  if kind == 'stream' then
    local info = redis.call('XINFO', 'STREAM', stream)
    for i = 1, #info, 2 do if info[i] == 'last-generated-id' then newest = info[i + 1] end end
  end
  -- The stream is a new one under an old name: nothing of it has been read.
  if above(last, newest) then begin = '0' end
end
redis.call('XGROUP', 'CREATE', stream, group, begin, 'MKSTREAM')
redis.call('DEL', position)
if begin ~= '$' then redis.call('HSET', position, 'last', begin == '0' and '0-0' or begin) end
if how == 'restored' then
  -- What has a record and lies below was parked or taken over, and may have been with a worker: it comes back.
  local t = redis.call('TIME')
  local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
  for _, id in ipairs(redis.call('HKEYS', KEYS[4])) do redis.call('ZADD', KEYS[5], 'NX', now, id) end
end
if spoken ~= ARGV[3] then redis.call('SET', protocol, ARGV[3]) end
return { how, begin }
