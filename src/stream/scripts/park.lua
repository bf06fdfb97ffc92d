-- Parks entries until their due time: for a retry (the attempt counts) or as a release (the attempt does not count).
-- Behind: common/errors, common/rights
-- KEYS: stream, retry, failures, waiting
-- ARGV: group, then of every entry: id, consumer, count, delay in ms, released (0|1),
--       ms since its delivery, doomed ('-', or the reason it is to be buried for), error,
--       what it waits for ('-', or its type and version as they are listed: a worker that can handle it may take it before)
-- Answers, for each: ok, taken (another delivery owns it), nobody (not pending), trimmed
local stream, retry, failures, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', failures)
local waiting = KEYS[4]
local no = lacks(stream, 'XCLAIM', retry, 'ZADD', failures, 'HSET HDEL')
if no then return no end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
for a = 2, #ARGV, 9 do
  local id = ARGV[a]
  local count = tonumber(ARGV[a + 2])
  local p = redis.call('XPENDING', stream, group, id, id, 1)
  local record = redis.call('HGET', failures, id)
  -- Where its group was set back the count begins again: what is noted tells a late step from this delivery's.
  local noted = record and tonumber(string.match(record, '^%d+ %d+ (%d+) ')) or 0
  if #p == 0 then
    out[#out + 1] = 'nobody'
  elseif p[1][2] ~= ARGV[a + 1] or p[1][4] ~= count or noted > count then
    out[#out + 1] = 'taken'
  else
    -- XCLAIM first: it is not refused when memory is short, and after it ZADD and HSET are not either.
    local claimed = redis.call('XCLAIM', stream, group, '(parked)', 0, id, 'JUSTID')
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
      if not first then first, given, died, doomed, error = string.format('%.0f', now - ARGV[a + 5]), 0, '-', '-', '' end
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
