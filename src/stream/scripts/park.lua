-- Parks entries until their due time: for a retry (the attempt counts) or as a release (the attempt does not count).
-- Behind: common/packed, common/pending, common/errors, common/rights, common/ids, common/reading, common/guards
-- KEYS: stream, retry, failures, waiting; of what is nobody's: guards
-- ARGV, packed: group, the consumer that most entries are with, the first and the last id; then, if what is parked is
--       nobody's (it is alone then): until when (ms) its end is the consumer's to write, how many attempts its record said
--       were released when it was delivered ('-': it had none), and whether it has attempts left (0|1), else three times '';
--       then of every entry: id, consumer, count, delay in ms, released (0|1), ms since its delivery, doomed ('-', or the
--       reason it is to be buried for), error, what it waits for ('-', or its type and version as they are listed: a worker
--       that can handle it may take it before)
--       (or nothing: it is only asked whether any could be parked)
-- Answers, for each: ok, taken (another delivery owns it), nobody (not pending), trimmed; of what is nobody's: settled (it
--       came to its end elsewhere), unread (it will come as a new one), missing (it is not in the stream), unknown (its record
--       is gone, and it has no attempts left), or late <now> (that time is over): nothing was done
local stream, retry, failures, waiting, group, usual = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2]
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', failures)
local no = lacks(stream, 'XPENDING XCLAIM', retry, 'ZADD', failures, 'HMGET HSET HDEL')
if no then return no end
if #ARGV == 7 then return {} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local stamp = string.format('%.0f', now)
-- What is nobody's is brought back: acknowledged by hand or by a worker that comes late, or its consumer was deleted. There is
-- no delivery count any more to fence a repeat, or a step that came before the entry's end elsewhere: those find a guard, or
-- a record that says that it was parked at this delivery. A record that is gone may have been swept, or gone with a success
-- that nobody knows any more: an entry without it has the attempts that are left, and no run behind the last one.
local own_until, given_then, has_more = tonumber(ARGV[5]), ARGV[6], ARGV[7] == '1'
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

local ids, number, pending = {}, 0, {}
for a = 8, #ARGV, 9 do
  number = number + 1
  ids[number] = ARGV[a]
end
if number > 1 then
  pending = pending_between(stream, group, ARGV[3], ARGV[4], 2 * number, usual)
end
local records = redis.call('HMGET', failures, unpack(ids))

-- Which of them are ours to park. XCLAIM comes first: it is not refused when memory is short, and after it ZADD and HSET
-- are not either.
local out, claim, claimed = {}, { 'XCLAIM', stream, group, '(parked)', 0 }, {}
local a = 8
for i = 1, number do
  local id, consumer, count, record = ids[i], ARGV[a + 1], tonumber(ARGV[a + 2]), records[i]
  local is_pending = consumer == usual and pending[id] == count
  local owner, delivery = consumer, count
  if not is_pending then
    local p = redis.call('XPENDING', stream, group, id, id, 1)
    is_pending = #p == 1
    if is_pending then owner, delivery = p[1][2], p[1][4] end
  end
  -- Where its group was set back the count begins again: what is noted tells a late step from this delivery's.
  local noted = record and tonumber(string.match(record, '^%d+ %d+ (%d+) ')) or 0
  local in_the_way = not is_pending and (not own_until and 'nobody' or stands_in_the_way(id, ARGV[a + 2], record))
  if in_the_way then
    out[i] = in_the_way
  elseif noted > count or owner ~= consumer or delivery ~= count then
    out[i] = 'taken'
  elseif is_pending then
    claim[#claim + 1] = id
  else
    local back = redis.call('XCLAIM', stream, group, '(parked)', 0, id, 'FORCE', 'RETRYCOUNT', count, 'JUSTID')
    claimed[id] = #back == 1
  end
  a = a + 9
end
if #claim > 5 then
  claim[#claim + 1] = 'JUSTID'
  for _, id in ipairs(redis.call(unpack(claim))) do claimed[id] = true end
end

local due, noted, trimmed = { 'ZADD', retry }, { 'HSET', failures }, { 'HDEL', failures }
a = 8
for i = 1, number do
  local id, record = ids[i], records[i]
  if out[i] then
    -- Nothing is to be done.
  elseif not claimed[id] then
    trimmed[#trimmed + 1] = id
    out[i] = 'trimmed'
  else
    local count, delay, released, doomed_for, failure, lists = ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], ARGV[a + 6],
      ARGV[a + 7], ARGV[a + 8]
    -- Where it can't be listed it comes back soon, for whoever takes it then.
    local listed = lists ~= '-' and type(redis.pcall('ZADD', waiting, 0, lists .. id)) == 'number'
    if lists ~= '-' and not listed then delay = math.min(delay, 5000) end
    due[#due + 1] = string.format('%.0f', now + delay)
    due[#due + 1] = id
    -- The record: first delivery (ms), attempts released, delivery count, `!` where its last worker died with it
    -- alone, `+` where that died with others beside it, or `-`, reason to bury it for, `?` where it waits for a worker
    -- that can handle it, or `-`, last error and those before it (errors.lua). What is released is still on the attempt before which its worker died.
    local first, given, died, doomed, error
    if record then
      first, given, died, doomed, error = string.match(record, '^(%d+) (%d+) %d+ (%S) (%S+) (.*)$')
    end
    if not first then
      first, given, died, doomed, error = string.format('%.0f', now - ARGV[a + 5]), tonumber(given_then) or 0, '-', '-', ''
    end
    if released ~= '1' then died = '-' end
    if doomed == '?' then doomed = '-' end
    if doomed_for ~= '-' then doomed = doomed_for end
    if failure ~= '' then
      error = with_one_more(error, failure, string.format('%.0f', count - given), stamp)
    end
    if doomed == '-' and listed then doomed = '?' end
    noted[#noted + 1] = id
    noted[#noted + 1] = table.concat({ first, given + released, count, died, doomed, error }, ' ')
    out[i] = 'ok'
  end
  a = a + 9
end
if #due > 2 then
  redis.call(unpack(due))
  redis.call(unpack(noted))
end
if #trimmed > 2 then redis.call(unpack(trimmed)) end
return out
