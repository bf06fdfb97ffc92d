-- Stops a run of replays, has it go on, takes its driver's seat or leaves it, ends it.
-- Behind: common/runs, common/rights
-- KEYS: runs
-- ARGV: number of the run, what: stop|resume|drive|leave|trip|finish, why or by whom, driver, ms for which nobody else
--       drives it
-- Answers: ok, missing, stopped, done, waiting (until its time has come), or taken; and the driver, why, or ms until it begins
local runs, n, what, why, me = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local no = lacks(runs, 'HSET HDEL HMGET')
if no then return no end
local is = redis.call('HMGET', runs, n .. ':state', n .. ':at', n .. ':driver', n .. ':until', n .. ':why', n .. ':replayed',
  n .. ':died', n .. ':succeeded')
local state, at, driver = is[1], tonumber(is[2] or '') or 0, is[3]
local driven = driver and driver ~= me and is_driven(is[4], now)
if not state then return { 'missing', '' } end
if state == 'done' then return { 'done', '' } end
local function vacate() redis.call('HDEL', runs, n .. ':driver', n .. ':until') end

if what == 'stop' then
  if state == 'stopped' then return { 'stopped', is[5] or '' } end
  redis.call('HSET', runs, n .. ':state', 'stopped', n .. ':why', why)
  set_active(runs, n, false)
  vacate()
  return { 'ok', '' }
end
if what == 'leave' then
  if driver == me then vacate() end
  return { 'ok', '' }
end
if what == 'resume' and state ~= 'running' then
  -- What became of it before says nothing of now.
  redis.call('HSET', runs, n .. ':state', 'running', n .. ':base',
    string.format('%s %s %s', is[6] or '0', is[7] or '0', is[8] or '0'))
  redis.call('HDEL', runs, n .. ':why', n .. ':at')
  set_active(runs, n, true)
  state = 'running'
end
if state == 'stopped' then return { 'stopped', is[5] or '' } end
if state == 'waiting' then
  if at > now then return { 'waiting', string.format('%.0f', at - now) } end
  redis.call('HSET', runs, n .. ':state', 'running')
end
if driven then return { 'taken', driver } end
if what == 'trip' or what == 'finish' then
  redis.call('HSET', runs, n .. ':state', what == 'trip' and 'stopped' or 'done', n .. ':why', why, n .. ':ended',
    string.format('%.0f', now))
  set_active(runs, n, false)
  vacate()
  return { 'ok', '' }
end
redis.call('HSET', runs, n .. ':driver', me, n .. ':until', string.format('%.0f', now + ARGV[5]))
return { 'ok', '' }
