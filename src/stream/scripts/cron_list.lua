-- Reads what is kept of a stream's crons.
-- Behind: common/ids, common/reading, common/cron
-- KEYS: stream, cron
-- Answers: now (ms), and of each its name, its record, its history, and whether the group still has the event that was
--       added last (0|1)
local t = redis.call('TIME')
local all, out = redis.call('HGETALL', KEYS[2]), {}
local history = {}
for i = 1, #all, 2 do
  local name = string.match(all[i], '^(.*):log$')
  if name then history[name] = all[i + 1] end
end
for i = 1, #all, 2 do
  if not string.match(all[i], ':log$') then
    local record = record_of(KEYS[2], all[i])
    out[#out + 1] = { all[i], all[i + 1], history[all[i]] or '', record and is_out(KEYS[1], record) and 1 or 0 }
  end
end
return { string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)), out }
