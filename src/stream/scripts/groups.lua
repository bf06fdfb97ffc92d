-- Counts dead letters that are alike, a step at a time: those that have come since the last look. What goes is taken off by
-- who takes it (common/left), so that a look at a million letters costs no more than one at a few. Where the sum is not
-- what there is (an earlier release, or other hands, took some off), all are counted anew.
-- Behind: common/ids, common/death, common/fingerprint, common/rights
-- KEYS: dead, groups
-- ARGV: most letters, most bytes, most groups: what comes above counts as `other`
-- Answers: whether there is more (0|1), how many letters are counted; and at the end all that is in the hash, names and
--          values in turn
local dead, groups = KEYS[1], KEYS[2]
local most, room, kinds_most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local length = redis.call('XLEN', dead) -- WRONGTYPE surfaces before the first write
local is = redis.call('HMGET', groups, 'at', 'count', 'strangers', 'kinds')
local no = lacks(groups, 'HINCRBY HSET HDEL DEL')
if no then return no end
local at, count, strangers, kinds = is[1], tonumber(is[2] or 0), tonumber(is[3] or 0), tonumber(is[4] or 0)
local from = at and just_above(at) or '-'

local found, order, looked, bytes, came, last = {}, {}, 0, 0, 0, nil
local ended = false
while looked < most and bytes < room do
  local entry = redis.call('XRANGE', dead, from, '+', 'COUNT', 1)[1]
  if not entry then
    ended = true
    break
  end
  local id, fields = entry[1], entry[2]
  looked, last, from = looked + 1, id, just_above(id)
  for _, s in ipairs(fields) do bytes = bytes + #s end
  local v, before = death_of(fields)
  if not v then
    strangers = strangers + 1
  else
    local of, n = original_of(fields, v, before)
    local event_type = first_named(of, n, 'type')
    local fingerprint, error = fingerprint_of(v, event_type)
    local group = found[fingerprint]
    if not group then
      group = { n = 0, first = id, versions = {}, is = { v[1], event_type or false, v[5], error, string.sub(v[2], 1, 500) } }
      found[fingerprint], order[#order + 1] = group, fingerprint
    end
    group.n, group.last = group.n + 1, id
    group.versions[first_named(of, n, 'schemaversion') or '1'] = true
    came = came + 1
  end
  if not from then
    ended = true
    break
  end
end

for _, fingerprint in ipairs(order) do
  local group = found[fingerprint]
  if redis.call('HEXISTS', groups, fingerprint .. ':n') == 0 then
    if kinds >= kinds_most then fingerprint = 'other' end
    if redis.call('HEXISTS', groups, fingerprint .. ':n') == 0 then
      kinds = kinds + 1
      if fingerprint == 'other' then group.is = { 'other', false, '', '', '' } end
      redis.call('HSET', groups, fingerprint .. ':is', cmsgpack.pack(group.is), fingerprint .. ':first', group.first)
    end
  end
  redis.call('HINCRBY', groups, fingerprint .. ':n', group.n)
  redis.call('HSET', groups, fingerprint .. ':last', group.last)
  local known = redis.call('HGET', groups, fingerprint .. ':versions') or ''
  local versions = known
  for version in pairs(group.versions) do
    -- A field may say anything: what is no number is none.
    if string.match(version, '^%d+$') and #version < 10 and #versions < 100
      and not string.find(' ' .. versions .. ' ', ' ' .. version .. ' ', 1, true) then
      versions = versions == '' and version or versions .. ' ' .. version
    end
  end
  if versions ~= known then redis.call('HSET', groups, fingerprint .. ':versions', versions) end
end
if last then
  redis.call('HSET', groups, 'at', last, 'count', string.format('%.0f', count + came), 'strangers',
    string.format('%.0f', strangers), 'kinds', string.format('%.0f', kinds))
end
count = count + came
if not ended then return { 1, string.format('%.0f', count) } end
if count + strangers ~= length then
  redis.call('DEL', groups)
  return { 1, '0' }
end
return { 0, string.format('%.0f', count), redis.call('HGETALL', groups) }
