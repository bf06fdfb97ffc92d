-- Whose it is to handle a stream whose events have an order: one worker's, for a lease, under a number that goes up.
-- Behind: common/clock
-- KEYS: order, which dead letters hold their subjects
-- ARGV: worker, lease in ms, is it there to have the stream (0|1), what it wants: - (what it has is renewed), free (what
--       nobody has), lapsed (that, and what somebody had) or release, then what the clock should show (ms) and how far
--       it may be off: what somebody had is not taken where it is further off
-- Answers: is it the worker's (0|1), the number, the owner or '', then the workers that are there, and whether any dead
--          letters hold their subjects (0|1)
--
-- Each worker that reads the stream says here that it is there, so that all agree who should have it. Nothing else
-- depends on it: who loses it finds out before it starts anything, and what is pending is what the next owner goes by.
-- The number is the time, or one more than the last: so it goes up even if this key is lost.
local key, me, lease, there, wants = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4]
local now = clock_ms()
local function text(n) return string.format('%.0f', n) end
local is, crew, gone = {}, {}, {}
local all = redis.call('HGETALL', key) -- WRONGTYPE surfaces before the first write
for i = 1, #all, 2 do
  local who = string.match(all[i], '^worker:(.*)$')
  if not who then
    is[all[i]] = all[i + 1]
  elseif who == me then
    if not there then gone[#gone + 1] = all[i] end
  elseif tonumber(all[i + 1]) > now then
    crew[#crew + 1] = who
  else
    gone[#gone + 1] = all[i]
  end
end
local owner, epoch = is.owner or '', tonumber(is.epoch or '0')
-- A clock that was set back makes no lease longer than it was.
local left = owner == '' and 0 or math.min(tonumber(is['until'] or '0') - now, tonumber(is.lease or '0'))
local takes = owner == '' and (wants == 'free' or wants == 'lapsed')
if owner ~= '' and owner ~= me and left <= 0 and wants == 'lapsed' then takes = not is_off(now, ARGV[5], ARGV[6]) end
if takes then owner, epoch = me, math.max(epoch + 1, now) end
local set = {}
if there then
  set = { 'worker:' .. me, text(now + lease) }
  crew[#crew + 1] = me
end
if owner == me and wants == 'release' then
  owner = ''
  for _, field in ipairs({ 'owner', 'until', 'lease' }) do gone[#gone + 1] = field end
elseif owner == me then
  for _, of in ipairs({ 'owner', me, 'epoch', text(epoch), 'until', text(now + lease), 'lease', text(lease) }) do
    set[#set + 1] = of
  end
end
if #set > 0 then redis.call('HSET', key, unpack(set)) end
if #gone > 0 then redis.call('HDEL', key, unpack(gone, 1, math.min(#gone, 1000))) end
return { owner == me and 1 or 0, text(epoch), owner, crew, redis.call('EXISTS', KEYS[2]) }
