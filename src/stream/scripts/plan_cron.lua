-- Looks at a cron, and goes on with it: writes its record, and puts the event of its next occurrence on the schedule in
-- place of the one that is there. Only if the record still is what whoever decided that has seen: so it goes forward.
-- Behind: common/scheduled, common/rights, common/ids, common/reading, common/cron
-- KEYS: stream, scheduled, events, cron
-- ARGV: its name; then, if something is to be written: the record as it was seen ('' for none), the new one, an occurrence
--       to take off the schedule or '', an occurrence to put on it or '', when that is due (ms), a line for its history
--       or '', then the fields of its event
-- Answers: whether it was written (0|1), the record as it stands or false, now (ms), whether its next occurrence stands on
--       the schedule (0|1), whether the group still has the event before (0|1)
local stream, scheduled, events, cron, name = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1]
redis.call('XLEN', stream) -- WRONGTYPE surfaces before the first write
redis.call('ZCARD', scheduled)
redis.call('HLEN', events)
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local record, kept = record_of(cron, name)

local function id_on_schedule(occurrence) return 'cron:' .. name .. ':' .. occurrence end
local function stands(of)
  return of and of.next ~= '' and redis.call('ZSCORE', scheduled, id_on_schedule(of.next)) and 1 or 0
end
local function looked(done, of, text)
  return { done, text or false, now, stands(of), of and is_out(stream, of) and 1 or 0 }
end
-- What other hands have spoilt is made anew.
if #ARGV == 1 or (kept or '') ~= ARGV[2] then return looked(0, record, kept) end

local no = lacks(cron, 'HGET HSET', scheduled, 'ZADD ZREM ZSCORE', events, 'HGET HSET HDEL')
if no then return no end
local off, on = ARGV[4], ARGV[5]
local ours = record and record.next
if on ~= '' and on ~= ours and redis.call('HEXISTS', events, id_on_schedule(on)) == 1 then
  return redis.error_reply('ERR another event is scheduled under the id ' .. id_on_schedule(on) .. ': cancel it')
end
if off ~= '' and off == ours then take_off(scheduled, events, id_on_schedule(off)) end
if on ~= '' then
  local fields = {}
  for a = 8, #ARGV do fields[#fields + 1] = ARGV[a] end
  redis.call('HSET', events, id_on_schedule(on), cmsgpack.pack(fields))
  redis.call('ZADD', scheduled, ARGV[6], id_on_schedule(on))
end
redis.call('HSET', cron, name, ARGV[3])
if ARGV[7] ~= '' then note_cron(cron, name, now .. ' ' .. ARGV[7]) end
return looked(1, record_of(cron, name), ARGV[3])
