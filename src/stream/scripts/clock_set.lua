-- The server's clock was set. What is parked is due by as much later, or sooner, so that it waits as long as it was to;
-- and what was delivered, renewed or seen in what is the future now counts from now on, with whom it is.
-- Every worker notices and asks for this; it is done once: a note says how far it is. What was parked since the clock was
-- set has its right time already.
-- Behind: common/ids, common/clock
-- KEYS: stream, retry, the note of the last time (string: when that was, and the id it goes on at or '-' where it is done)
-- ARGV: group, ms it was set ahead by (below zero: back), ms since the worker saw it last as it was, at most, most entries
-- Answers: whether there is more to do (0|1)
local stream, retry, note, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local by, since, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
local now = clock_ms()
local at, from = string.match(redis.call('GET', note) or '', '^(%d+) (%S+)$')
-- Done, or begun, since this worker saw the clock as it was. The other way the note lies in the future, or is old.
local is_known = at and now - at >= 0 and now - at <= since
if is_known and from == '-' then return 0 end
if not is_known then
  at, from = string.format('%.0f', now), '0-0'
  -- If it runs through what is skipped, it is the worker's own machine that stood still, and not the clock that was set.
  local first, last = now - by + 1000, now - since - 1000
  if by > 0 and last > first then
    local range = { string.format('%.0f', first), string.format('%.0f', last) }
    local between = #redis.call('XRANGE', stream, range[1], range[2], 'COUNT', 1) > 0
    for _, p in ipairs(redis.call('XPENDING', stream, group, '-', '+', most, '(parked)')) do
      between = between or (p[3] > now - last and p[3] < now - first)
    end
    if between then return 0 end
  end
  if by < 0 then
    for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
      local of = {}
      for i = 1, #c, 2 do of[c[i]] = c[i + 1] end
      -- A sign of life, which it is no more; but from now on it grows old. Not where reading could deliver something.
      if of.idle == 0 and of.pending == 0 then
        redis.call('XREADGROUP', 'GROUP', group, of.name, 'COUNT', 1, 'STREAMS', stream, '18446744073709551615-0')
      end
    end
  end
end

local pending = redis.call('XPENDING', stream, group, from, '+', most)
for _, p in ipairs(pending) do
  local id, holder, idle = p[1], p[2], p[3]
  local due = holder == '(parked)' and redis.call('ZSCORE', retry, id)
  if due then
    -- Redis tells no idle time below zero: it is zero for what lies in the future, and within this very millisecond.
    local is_from_before = idle > now - at + since or (idle == 0 and by < 0 and due - now > -by / 2)
    if is_from_before then
      -- XCLAIM first: it is not refused where memory is short, and after it ZADD is not either.
      redis.call('XCLAIM', stream, group, holder, 0, id, 'IDLE', string.format('%.0f', math.max(idle - by, 1)), 'JUSTID')
      redis.call('ZADD', retry, 'XX', string.format('%.0f', math.max(due + by, 0)), id)
    end
  elseif idle == 0 and by < 0 then
    redis.call('XCLAIM', stream, group, holder, 0, id, 'IDLE', 1, 'JUSTID')
  end
end
local next_id = #pending == most and just_above(pending[#pending][1]) or false
-- Where nothing was written before this may be refused for want of memory: then nothing was to be done.
redis.pcall('SET', note, at .. ' ' .. (next_id or '-'), 'PX', 86400000)
return next_id and 1 or 0
