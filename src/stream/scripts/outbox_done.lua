-- Takes off what is known to be in the other stream, and says why the rest waits.
-- Behind: common/rights
-- KEYS: outbox, turns, what waits for that stream
-- ARGV: me, that stream, how long nobody is to try again (ms; 0: the turn goes on), why, whether it is known what became
--       of all that was handed out (0|1), then id and mark of each
-- Answers: how many are left
local outbox, turns, waiting = KEYS[1], KEYS[2], KEYS[3]
local me, target, rest, why = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
redis.call('XLEN', waiting) -- WRONGTYPE surfaces before the first write
redis.call('SCARD', outbox)
local no = lacks(turns, 'HGET HSET HDEL', waiting, 'XRANGE XDEL DEL', outbox, 'SREM')
if no then return no end
local ids = {}
for a = 6, #ARGV, 2 do
  -- After a failover, and after all was taken off, another can have the id.
  local entry = redis.call('XRANGE', waiting, ARGV[a], ARGV[a])[1]
  if entry and entry[2][2] == ARGV[a + 1] then ids[#ids + 1] = ARGV[a] end
end
if #ids > 0 then redis.call('XDEL', waiting, unpack(ids)) end
local left = redis.call('XLEN', waiting)
if left == 0 then
  redis.call('DEL', waiting)
  redis.call('SREM', outbox, target)
  redis.call('HDEL', turns, 'turn:' .. target, 'sent:' .. target, 'why:' .. target)
  return 0
end
local who = string.match(redis.call('HGET', turns, 'turn:' .. target) or '', '^%d+ (.*)$')
if who and who ~= me then return left end
if ARGV[5] == '1' then redis.call('HDEL', turns, 'sent:' .. target) end
if why == '' then redis.call('HDEL', turns, 'why:' .. target) end
if rest > 0 then
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  redis.pcall('HSET', turns, 'turn:' .. target, string.format('%.0f', now + rest) .. ' ' .. me)
  local since = string.match(redis.call('HGET', turns, 'why:' .. target) or '', '^(%d+) ')
  if why ~= '' then
    redis.pcall('HSET', turns, 'why:' .. target, (since or string.format('%.0f', now)) .. ' ' .. why)
  end
end
return left
