-- The newest id that a stream has ever given out. XINFO STREAM has the first and the last entry beside it, whole, and
-- those may be large: they stay here.
-- KEYS: stream
-- Answers: the id, or false if there is no such key
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local about = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #about, 2 do
  if about[i] == 'last-generated-id' then return about[i + 1] end
end
return redis.error_reply('ERR the newest id is not among what XINFO STREAM tells')
