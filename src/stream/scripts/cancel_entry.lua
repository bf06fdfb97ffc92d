-- Asks that an entry is not handled, or not any more. What is parked is settled here; of what is with a worker, or has not
-- been read, there is a mark from now on, by which whoever has it settles it as cancelled.
-- Behind: common/ids, common/rights, common/guards
-- KEYS: stream, retry, failures, guards, cancelled, asked
-- ARGV: group, id, by, how long what is said of it lasts (ms), how often it can be said, delete (0|1)
-- Answers: what it came to, and of whom: cancelled (it was parked), held <consumer>, unread, before <note> (it was cancelled or
--       asked for before, and the note says which), settled (there is nothing to cancel), missing (no such entry), none (no
--       such group), full (too much is asked already)
local stream, retry, failures, guards, cancelled, asked = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, id = ARGV[1], ARGV[2]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local last
if redis.call('EXISTS', stream) == 0 then return { 'missing', '' } end
for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local info = {}
  for i = 1, #g, 2 do info[g[i]] = g[i + 1] end
  if info.name == group then last = info['last-delivered-id'] end
end
local p = last and redis.call('XPENDING', stream, group, id, id, 1)[1]
local note = redis.call('HGET', cancelled, id)
local state = note and string.match(note, '^%a+')
if not p and state == 'done' then return { 'before', note } end
if not p and #redis.call('XRANGE', stream, id, id) == 0 then return { 'missing', '' } end
if not last then return { 'none', '' } end
if not p and not above(id, last) then return { 'settled', '' } end
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', failures)
redis.call('ZCARD', guards)
redis.call('HLEN', asked)
local no = lacks(cancelled, 'HSET HDEL PEXPIRE PTTL HGETALL HLEN', asked, 'HSET', stream, 'XACK XDEL', failures, 'HDEL', retry, 'ZREM', guards, 'ZADD')
if no then return no end
-- What is over is taken out now and then.
if redis.call('HLEN', cancelled) >= tonumber(ARGV[5]) then
  local all, over = redis.call('HGETALL', cancelled), {}
  for i = 1, #all, 2 do
    local till = tonumber(string.match(all[i + 1], '^%a+ (%d+) '))
    if (not till or till <= now) and #over < 5000 then over[#over + 1] = all[i] end
  end
  if #over == 0 and not note then return { 'full', '' } end
  if #over > 0 then redis.call('HDEL', cancelled, unpack(over)) end
end
local till = string.format('%.0f', now + ARGV[4])
local function say(what)
  redis.call('HSET', cancelled, id, what .. ' ' .. till .. ' ' .. string.format('%.0f', now) .. ' ' .. ARGV[3])
  if redis.call('PTTL', cancelled) < tonumber(ARGV[4]) then redis.call('PEXPIRE', cancelled, ARGV[4]) end
end
if p and p[2] == '(parked)' then
  say('done')
  guard(guards, { id }, now, '(parked)')
  redis.call('XACK', stream, group, id)
  if ARGV[6] == '1' then redis.call('XDEL', stream, id) end
  redis.call('HDEL', failures, id)
  redis.call('ZREM', retry, id)
  return { 'cancelled', '' }
end
local before = state == 'asked' and note
say('asked')
-- Workers hear of this with every look for due entries, and read the marks when it has changed.
redis.call('HSET', asked, 'cancels', till .. ' ' .. id .. ' ' .. string.format('%.0f', now))
if redis.call('PTTL', asked) < tonumber(ARGV[4]) then redis.call('PEXPIRE', asked, ARGV[4]) end
if before then return { 'before', before } end
if p then return { 'held', p[2] } end
return { 'unread', '' }
