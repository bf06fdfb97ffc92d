-- Makes sure that the group is there and that this worker speaks its protocol. A group that was there before is made
-- anew just below the lowest its workers may not have settled: its position tells, or what this worker knows of it,
-- where the position went along with the stream.
-- Behind: common/ids, common/rights
-- KEYS: stream, position, protocol, failures, retry
-- ARGV: group, where a new group begins (0|$), protocol number, a name for the group should it be made now, then what
--       this worker knows: the name of the group it has joined or '', how far that had read, `from <id>` or `after <id>`:
--       see renew.lua; most entries and most bytes to look at
-- Answers: joined|created|restored|foreign, the id the group begins or stands at or the protocol number, its name, how
--          many entries were brought back that it had passed over, whether there are more of them (0|1)
local stream, position, protocol, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local name, knows = ARGV[4], ARGV[5] ~= ''
local spoken = redis.call('GET', protocol)
if spoken and tonumber(spoken) > tonumber(ARGV[3]) then return { 'foreign', spoken, '', 0, 0 } end
local function map(list)
  local of = {}
  for i = 1, #list, 2 do of[list[i]] = list[i + 1] end
  return of
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local noted = map(redis.call('HGETALL', position))
redis.call('ZCARD', KEYS[5]) -- WRONGTYPE surfaces before the first write
local newest, there = '0-0', nil
local kind = redis.call('TYPE', stream).ok
if kind == 'stream' then
  newest = map(redis.call('XINFO', 'STREAM', stream))['last-generated-id']
  for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = map(g)
    if info.name == group then there = info end
  end
end

-- Where the group that was there before has to begin again.
local function again(last, notes)
  -- The stream is a new one under an old name: nothing of it has been read.
  if above(last, newest) then return '0-0' end
  -- Whoever is alive and whoever is not can't be told now: below what any of them may still have had.
  local begin = last
  for _, note in pairs(notes) do
    local word, id = string.match(note, '^(%S+) (%d+%-%d+)$')
    if word == 'from' then id = just_below(id) or '0-0' end
    if id and above(begin, id) then begin = id end
  end
  return begin
end

if there then
  local brought, more = 0, 0
  -- It is not the one this worker has joined, and whoever made it could not know that there had been one, and began at
  -- the end. What it has passed over has come since: it comes by its due time, from the highest on, so that what is
  -- left to be done stands in the position.
  if noted.skipped and (noted.missing or (knows and noted.name ~= ARGV[5])) then
    local no = lacks(position, 'HSET HDEL', KEYS[5], 'ZADD', stream, 'XREVRANGE')
    if no then return no end
    local above_this = noted.missing or again(ARGV[6], { ARGV[7] })
    redis.call('HSET', position, 'missing', above_this)
    local from, upto, bytes = just_above(above_this), noted.skipped, 0
    while from and upto and brought < tonumber(ARGV[8]) and bytes <= tonumber(ARGV[9]) do
      local entry = redis.call('XREVRANGE', stream, upto, from, 'COUNT', 1)[1]
      if not entry then
        upto = nil
        break
      end
      for _, s in ipairs(entry[2]) do bytes = bytes + #s end
      local due = exact((parts(entry[1]))) or now
      redis.call('ZADD', KEYS[5], 'NX', string.format('%.0f', math.min(due, now)), entry[1])
      brought, upto = brought + 1, just_below(entry[1])
    end
    if upto and from then
      redis.call('HSET', position, 'skipped', upto)
      more = 1
    else
      redis.call('HDEL', position, 'skipped', 'missing')
    end
  end
  if spoken ~= ARGV[3] then redis.call('SET', protocol, ARGV[3]) end
  -- Made by hand, or by an older release. pcall: nothing depends on it where memory is short.
  if not noted.name then redis.pcall('HSET', position, 'name', name) end
  -- How far it had read is more where it was set back since.
  local last = there['last-delivered-id']
  if noted.last and above(noted.last, last) and not above(noted.last, newest) then last = noted.last end
  return { 'joined', last, redis.call('HGET', position, 'name') or '', brought, more }
end

local how, begin = 'created', ARGV[2] == '0' and '0-0' or newest
local notes = {}
for field, value in pairs(noted) do
  if field ~= 'last' and field ~= 'name' and field ~= 'skipped' and field ~= 'missing' then notes[field] = value end
end
if noted.last then
  how, begin = 'restored', again(noted.last, notes)
elseif knows then
  how, begin = 'restored', again(ARGV[6], { ARGV[7] })
end
local no = lacks(stream, 'XGROUP|CREATE', position, 'DEL HSET', KEYS[4], 'HKEYS', KEYS[5], 'ZADD', protocol, 'SET')
if no then return no end
redis.call('XGROUP', 'CREATE', stream, group, begin, 'MKSTREAM')
redis.call('DEL', position)
redis.call('HSET', position, 'last', begin, 'name', name)
if how == 'restored' then
  -- What has a record and lies below was parked or taken over, and may have been with a worker: it comes back.
  local stamp = string.format('%.0f', now)
  for _, id in ipairs(redis.call('HKEYS', KEYS[4])) do redis.call('ZADD', KEYS[5], 'NX', stamp, id) end
elseif begin ~= '0-0' then
  redis.call('HSET', position, 'skipped', begin)
end
if spoken ~= ARGV[3] then redis.call('SET', protocol, ARGV[3]) end
return { how, begin, name, 0, 0 }
