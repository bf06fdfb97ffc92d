-- Settles an entry that is cancelled: acknowledges it, and notes that. As bury, without a letter.
-- Behind: common/rights, common/guards
-- KEYS: stream, retry, failures, guards, cancelled, mark of its event (the stream where there is none)
-- ARGV: group, consumer, id, count, time (ms) until which it is the consumer's to settle should it be nobody's (0: it is
--       not), delete (0|1), how long what is said of it lasts (ms), by (if nothing is noted)
-- Answers: ok, taken, nobody, late <now>
local stream, retry, failures, guards, cancelled, mark = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, me, id, own = ARGV[1], ARGV[2], ARGV[3], ARGV[5] ~= '0'
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local p = redis.call('XPENDING', stream, group, id, id, 1)
if #p == 0 and not own then return 'nobody' end
if #p == 1 and (p[1][2] ~= me or p[1][4] ~= tonumber(ARGV[4])) then return 'taken' end
redis.call('ZCARD', guards) -- WRONGTYPE surfaces before the first write
if #p == 0 and is_guarded(guards, id, now) then return 'ok' end
if #p == 0 and now > tonumber(ARGV[5]) then return 'late ' .. string.format('%.0f', now) end
redis.call('ZCARD', retry)
redis.call('HLEN', failures)
local no = lacks(cancelled, 'HGET HSET PTTL PEXPIRE', guards, 'ZADD', stream, 'XACK XDEL', failures, 'HDEL', retry, 'ZREM')
if no then return no end
local note = redis.call('HGET', cancelled, id)
local by = note and string.match(note, '^%a+ %d+ %d+ (.*)$') or ARGV[8]
local till = string.format('%.0f', now + ARGV[7])
redis.call('HSET', cancelled, id, 'done ' .. till .. ' ' .. string.format('%.0f', now) .. ' ' .. by)
if redis.call('PTTL', cancelled) < tonumber(ARGV[7]) then redis.call('PEXPIRE', cancelled, ARGV[7]) end
guard(guards, { id }, now, me, #p == 0)
redis.call('XACK', stream, group, id)
if ARGV[6] == '1' then redis.call('XDEL', stream, id) end
redis.call('HDEL', failures, id)
redis.call('ZREM', retry, id)
-- Copies of its event need not wait for it any more.
if mark ~= stream then
  local claimed = redis.pcall('GET', mark)
  if type(claimed) == 'string' and string.match(claimed, '^runs (%S+)') == id then redis.pcall('DEL', mark) end
end
return 'ok'
