-- Gives some dead letters back to their group for a run, as replay.lua does, as long as the run goes on, its driver is the
-- one who asks, and no more of its copies are unsettled than may be. What is noted of the run is noted in the same step:
-- whoever goes on with it knows all that was done.
-- Behind: common/ids, common/death, common/fingerprint, common/left, common/replay_letter, common/rights, common/runs
-- KEYS: dead, again, protocol, notes, groups, runs, out
-- ARGV: protocol number, by whom, most bytes, number of the run, driver, ms for which nobody else drives it, how many of its
--       copies may be unsettled, where the run goes on once all of these are done, then of every letter: id,
--       '<dead.entry> <dead.at>'
-- Answers: state of the run (running, or why nothing was done: stopped|done|waiting|missing|taken), of every letter it came
--          to the id of its copy or false where it is gone, the error that stopped it or false, protocol number of a newer
--          release or false
local dead, again, notes, runs, out, n = KEYS[1], KEYS[2], KEYS[4], KEYS[6], KEYS[7], ARGV[4]
local spoken = redis.call('GET', KEYS[3])
if spoken and tonumber(spoken) > tonumber(ARGV[1]) then return { 'running', {}, false, spoken } end
redis.call('XLEN', dead) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', again)
redis.call('HLEN', notes)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local is = redis.call('HMGET', runs, n .. ':state', n .. ':driver', n .. ':until', n .. ':replayed', n .. ':died',
  n .. ':succeeded')
if is[1] ~= 'running' then return { is[1] or 'missing', {}, false, false } end
if is[2] ~= ARGV[5] and is_driven(is[3], now) then return { 'taken', {}, false, false } end
local outstanding = redis.call('HLEN', out)
local no = lacks(again, 'XADD', dead, 'XDEL', notes, 'HMGET HDEL', runs, 'HSET HINCRBY', out, 'HSET')
if no then return no end
local room = ARGV[7] - ((is[4] or 0) - (is[5] or 0) - (is[6] or 0))

local copies, bytes, replayed, gone, err, cursor = {}, 0, 0, 0, false, false
-- What died before this is of no run that is still counted.
local newest = outstanding == 0 and redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 1)[1]
local looked = newest and newest[1]
for a = 9, #ARGV, 2 do
  if bytes > tonumber(ARGV[3]) or replayed >= room then break end
  local copy, size = replay_letter(dead, again, notes, KEYS[5], runs, out, ARGV[a], ARGV[a + 1], ARGV[2])
  if type(copy) == 'table' then
    err = copy.err
    break
  end
  bytes, cursor = bytes + size, ARGV[a]
  if copy then
    redis.call('HSET', out, copy, n)
    replayed = replayed + 1
  else
    gone = gone + 1
  end
  copies[#copies + 1] = copy
end
if #copies > 0 then
  if #copies == (#ARGV - 8) / 2 then cursor = ARGV[8] end
  redis.call('HSET', runs, n .. ':cursor', cursor, n .. ':driver', ARGV[5], n .. ':until',
    string.format('%.0f', now + ARGV[6]))
  if replayed > 0 then
    redis.call('HINCRBY', runs, n .. ':replayed', replayed)
    if looked then redis.call('HSET', runs, 'looked', looked) end
  end
  if gone > 0 then redis.call('HINCRBY', runs, n .. ':gone', gone) end
end
return { 'running', copies, err, false }
