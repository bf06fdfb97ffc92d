-- Pauses a cron, or resumes it.
-- Behind: common/ids, common/reading, common/cron
-- KEYS: stream, cron
-- ARGV: its name, pause or resume, by whom, for how many ms ('' for no end), why
-- Answers: 'none' where there is no such cron; else 'paused' or 'running', as it was, and until when it is paused (ms)
--       or ''
local cron, name = KEYS[2], ARGV[1]
local record = record_of(cron, name)
if not record then return { 'none', '' } end
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local was = is_paused(record, now) and 'paused' or 'running'
record.paused, record.paused_until, record.paused_by, record.paused_note = '', '', '', ''
if ARGV[2] == 'pause' then
  record.paused, record.paused_by, record.paused_note = now, ARGV[3], ARGV[5]
  if ARGV[4] ~= '' then record.paused_until = string.format('%.0f', now + ARGV[4]) end
end
if ARGV[2] == 'pause' or was == 'paused' then redis.call('HSET', cron, name, cjson.encode(record)) end
return { was, record.paused_until }
