-- Moves one entry, whole, to the dead letters.
-- Behind: common/letter, common/errors, common/rights, common/guards
-- KEYS: stream, retry, dead, failures, guards, mark of its event (the stream where there is none), notes of dead letters,
--       which letters hold their subjects (the stream where none do)
-- ARGV: group, consumer, id, count, time (ms) until which it is the consumer's to bury should it be nobody's (0: it is
--       not), ms since its delivery, delete (0|1), reason, error, attempts, handler, name of the stream, replays, crash
--       checks, then (once asked for) the fields
-- Answers: ok, taken, nobody, missing (no longer in the stream: send the fields along), late <now> (it is nobody's, and
--          that time is over: nothing was done)
local stream, retry, dead, failures, guards, mark = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, me, id, own = ARGV[1], ARGV[2], ARGV[3], ARGV[5] ~= '0'
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local p = redis.call('XPENDING', stream, group, id, id, 1)
if #p == 0 and not own then return 'nobody' end
if #p == 1 and (p[1][2] ~= me or p[1][4] ~= tonumber(ARGV[4])) then return 'taken' end
-- Nobody's, and its holder buries it: there is no delivery count any more to fence a repeat, or a step that came
-- before the entry's success elsewhere. Every burial, and every success after a failure, leaves a guard.
redis.call('ZCARD', guards) -- WRONGTYPE surfaces before the first write
if #p == 0 and is_guarded(guards, id, now) then return 'ok' end
-- It stayed on its way until others may have had the entry, and the guard of what they did is gone.
if #p == 0 and now > tonumber(ARGV[5]) then return 'late ' .. string.format('%.0f', now) end

local fields
local entry = redis.call('XRANGE', stream, id, id)[1]
if entry then
  fields = entry[2]
elseif #ARGV > 14 then
  fields = {}
  for a = 15, #ARGV do fields[#fields + 1] = ARGV[a] end
else
  return 'missing'
end

-- Of one that was not read its own fields tell what it is.
local handler = ARGV[11]
for f = 1, handler == '' and #fields or 0, 2 do
  if fields[f] == 'type' then handler = fields[f + 1] break end
end
redis.call('ZCARD', retry)
redis.call('XLEN', dead)
local held, subject = KEYS[8], nil
if held and string.sub(held, -5) == ':held' then
  for f = 1, #fields, 2 do
    if fields[f] == 'subject' then subject = fields[f + 1] break end
  end
end
local holds = subject and subject ~= ''
if holds then redis.call('HLEN', held) end
local no = holds and lacks(held, 'HSET') or lacks(dead, 'XADD', guards, 'ZADD', stream, 'XACK XDEL', failures, 'HDEL', retry, 'ZREM')
if no then return no end
local first = now - ARGV[6]
local record = redis.call('HGET', failures, id)
if record then first = tonumber(string.match(record, '^(%d+) ')) or first end

local letter_id = redis.call('XADD', dead, '*', unpack(letter(fields, { reason = ARGV[8], error = ARGV[9], attempts = ARGV[10],
  handler = handler, stream = ARGV[12], group = group, entry = id, consumer = me, first = first, now = now,
  replays = ARGV[13], checks = ARGV[14] })))
-- See order_held.lua.
if holds then redis.call('HSET', held, letter_id, (ARGV[7] == '1' and '0 ' or '1 ') .. id .. ' ' .. subject) end
-- The errors before the last one stand beside the letter. Nothing depends on them.
local doomed, tail = string.match(record or '', '^%d+ %d+ %d+ %S (%S+) (.*)$')
if tail and tail ~= '' and KEYS[7] then
  local errors = errors_of(tail)
  if doomed == '-' or doomed == '?' then errors = with_error(errors, ARGV[9], ARGV[10], now) end
  if #errors > 1 or errors[1].times ~= '1' then
    redis.pcall('HSET', KEYS[7], letter_id .. ' of', id .. ' ' .. rfc3339(now), letter_id .. ' errors',
      table.concat(error_parts(errors, 1), SEPARATOR))
  end
end
guard(guards, { id }, now, me, #p == 0)
redis.call('XACK', stream, group, id)
if ARGV[7] == '1' then redis.call('XDEL', stream, id) end
redis.call('HDEL', failures, id)
redis.call('ZREM', retry, id)
-- Copies of its event need not wait for it any more.
if mark ~= stream then
  local claimed = redis.pcall('GET', mark)
  if type(claimed) == 'string' and string.match(claimed, '^runs (%S+)') == id then redis.pcall('DEL', mark) end
end
return 'ok'
