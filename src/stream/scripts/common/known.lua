-- An entry that is with `me` at its first delivery, and is known from before: its group was set back or made anew, for
-- what is delivered the first time has no record. What was parked is parked again, and comes when it is due. The rest
-- goes on behind the last delivery that is noted, so that no attempt is had twice.
-- Answers new|parked|again, and to go on the count and the record.
local function goes_on(stream, group, me, retry, failures, id)
  local record = redis.call('HGET', failures, id)
  local count = record and string.match(record, '^%d+ %d+ (%d+) ')
  if redis.call('ZSCORE', retry, id) then
    if #redis.call('XCLAIM', stream, group, '(parked)', 0, id, 'RETRYCOUNT', count or 1, 'JUSTID') == 1 then
      return 'parked'
    end
    return 'new'
  end
  if not count then return 'new' end
  count = count + 1
  if #redis.call('XCLAIM', stream, group, me, 0, id, 'RETRYCOUNT', count, 'JUSTID') == 0 then return 'new' end
  return 'again', count, record
end
