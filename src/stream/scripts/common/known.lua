-- An entry that is with somebody at its first delivery, and is known from before: its group was set back or made anew, for
-- what is delivered the first time has no record.

-- The delivery that is noted of it last, and its record.
local function last_noted(failures, id)
  local record = redis.call('HGET', failures, id)
  return record and tonumber(string.match(record, '^%d+ %d+ (%d+) ')), record
end

-- What was parked is parked again at its count, and comes when it is due.
local function parks_again(stream, group, retry, id, count)
  if type(redis.pcall('ZSCORE', retry, id)) ~= 'string' then return false end
  return #redis.call('XCLAIM', stream, group, '(parked)', 0, id, 'RETRYCOUNT', count or 1, 'JUSTID') == 1
end

-- What is to become of one that is with `me`. What is not parked goes on behind the last delivery that is noted, so that
-- no attempt is had twice.
-- Answers new|parked|again, and to go on the count and the record.
local function goes_on(stream, group, me, retry, failures, id)
  local count, record = last_noted(failures, id)
  if parks_again(stream, group, retry, id, count) then return 'parked' end
  if not count then return 'new' end
  count = count + 1
  if #redis.call('XCLAIM', stream, group, me, 0, id, 'RETRYCOUNT', count, 'JUSTID') == 0 then return 'new' end
  return 'again', count, record
end
