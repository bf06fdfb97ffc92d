-- Parks entries until their due time: for a retry (the attempt counts) or as a release (the attempt does not count).
-- Behind: common/errors, common/rights, common/ids, common/reading, common/guards
-- KEYS: stream, retry, failures, waiting; of what is nobody's: guards
-- ARGV: group, then of every entry: id, consumer, count, delay in ms, released (0|1),
--       ms since its delivery, doomed ('-', or the reason it is to be buried for), error,
--       what it waits for ('-', or its type and version as they are listed: a worker that can handle it may take it before),
--       and behind one that is nobody's: until when (ms) its end is the consumer's to write, how many attempts its
--       record said were released when it was delivered ('-': it had none), and whether it has attempts left (0|1)
-- Answers, for each: ok, taken (another delivery owns it), nobody (not pending), trimmed; of what is nobody's: settled (it
--       came to its end elsewhere), unread (it will come as a new one), missing (it is not in the stream), unknown (its record
--       is gone, and it has no attempts left), or late <now> (that time is over): nothing was done
local stream, retry, failures, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', failures)
local waiting = KEYS[4]
local no = lacks(stream, 'XCLAIM', retry, 'ZADD', failures, 'HSET HDEL')
if no then return no end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- What is nobody's is brought back: acknowledged by hand or by a worker that comes late, or its consumer was deleted. There is
-- no delivery count any more to fence a repeat, or a step that came before the entry's end elsewhere: those find a guard, or
-- a record that says that it was parked at this delivery. A record that is gone may have been swept, or gone with a success
-- that nobody knows any more: an entry without it has the attempts that are left, and no run behind the last one.
local own_until = #ARGV % 9 == 4 and tonumber(ARGV[#ARGV - 2])
local given_then, has_more = own_until and ARGV[#ARGV - 1], ARGV[#ARGV] == '1'
local function stands_in_the_way(id, count, record)
  if is_guarded(KEYS[5], id, now) then return 'settled' end
  if now > own_until then return 'late ' .. string.format('%.0f', now) end
  if #redis.call('XRANGE', stream, id, id) == 0 then return 'missing' end
  if not record and given_then ~= '-' and not has_more then return 'unknown' end
  -- Who takes over notes the count as well, and that its worker died.
  local given, noted, died = string.match(record or '', '^%d+ (%d+) (%d+) (%S) ')
  if noted == count and (died == '-' or given - (tonumber(given_then) or 0) > 0) then return 'taken' end
  return above(id, read_up_to(stream, group)) and 'unread'
end
local out = {}
for a = 2, #ARGV - 8, 9 do
  local id = ARGV[a]
  local count = tonumber(ARGV[a + 2])
  local p = redis.call('XPENDING', stream, group, id, id, 1)
  local record = redis.call('HGET', failures, id)
  -- Where its group was set back the count begins again: what is noted tells a late step from this delivery's.
  local noted = record and tonumber(string.match(record, '^%d+ %d+ (%d+) ')) or 0
  local in_the_way = #p == 0 and (not own_until and 'nobody' or stands_in_the_way(id, ARGV[a + 2], record))
  if in_the_way then
    out[#out + 1] = in_the_way
  elseif noted > count or #p == 1 and (p[1][2] ~= ARGV[a + 1] or p[1][4] ~= count) then
    out[#out + 1] = 'taken'
  else
    -- XCLAIM first: it is not refused when memory is short, and after it ZADD and HSET are not either.
    local claimed
    if #p == 1 then
      claimed = redis.call('XCLAIM', stream, group, '(parked)', 0, id, 'JUSTID')
    else
      claimed = redis.call('XCLAIM', stream, group, '(parked)', 0, id, 'FORCE', 'RETRYCOUNT', count, 'JUSTID')
    end
    if #claimed == 0 then
      redis.call('HDEL', failures, id)
      out[#out + 1] = 'trimmed'
    else
      -- Where it can't be listed it comes back soon, for whoever takes it then.
      local listed = ARGV[a + 8] ~= '-' and type(redis.pcall('ZADD', waiting, 0, ARGV[a + 8] .. id)) == 'number'
      local delay = tonumber(ARGV[a + 3])
      if ARGV[a + 8] ~= '-' and not listed then delay = math.min(delay, 5000) end
      redis.call('ZADD', retry, string.format('%.0f', now + delay), id)
      -- The record: first delivery (ms), attempts released, delivery count, `!` where its last worker died with it
      -- alone, `+` where that died with others beside it, or `-`, reason to bury it for, `?` where it waits for a worker
      -- that can handle it, or `-`, last error and those before it (errors.lua). What is released is still on the attempt before which its worker died.
      local first, given, died, doomed, error
      if record then first, given, died, doomed, error = string.match(record, '^(%d+) (%d+) %d+ (%S) (%S+) (.*)$') end
      if not first then first, given, died, doomed, error = string.format('%.0f', now - ARGV[a + 5]), tonumber(given_then or 0) or 0, '-', '-', '' end
      if ARGV[a + 4] ~= '1' then died = '-' end
      if doomed == '?' then doomed = '-' end
      if ARGV[a + 6] ~= '-' then doomed = ARGV[a + 6] end
      if ARGV[a + 7] ~= '' then
        error = as_tail(with_error(errors_of(error), ARGV[a + 7], string.format('%.0f', count - given), now))
      end
      if doomed == '-' and listed then doomed = '?' end
      local noted = { first, given + ARGV[a + 4], ARGV[a + 2], died, doomed, error }
      redis.call('HSET', failures, id, table.concat(noted, ' '))
      out[#out + 1] = 'ok'
    end
  end
end
return out
