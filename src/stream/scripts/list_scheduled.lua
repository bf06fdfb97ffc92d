-- Reads scheduled events in the order of their due times.
-- Behind: common/scheduled
-- KEYS: scheduled, events
-- ARGV: due time and name of the event to go on after, as they were answered, both '' to begin; most events, most bytes
-- Answers: {name, due time (ms) as the server writes it, packed fields or false, id} of each, whether there are more
--       (0|1)
local scheduled, events, due, name = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
redis.call('HLEN', events) -- WRONGTYPE surfaces where nothing is scheduled, too
local from = 0
if due ~= '' then
  if redis.call('ZSCORE', scheduled, name) == due then
    from = redis.call('ZRANK', scheduled, name) + 1
  else
    -- It has gone meanwhile: the others of its time come again.
    from = redis.call('ZCOUNT', scheduled, '-inf', '(' .. due)
  end
end
local found = redis.call('ZRANGE', scheduled, from, from + ARGV[3] - 1, 'WITHSCORES')
local out, bytes = {}, 0
for i = 1, #found, 2 do
  if bytes > tonumber(ARGV[4]) then break end
  local packed = redis.call('HGET', events, found[i])
  bytes = bytes + (packed and #packed or 0)
  out[#out + 1] = { found[i], found[i + 1], packed, id_of(found[i]) }
end
return { out, from + #out < redis.call('ZCARD', scheduled) and 1 or 0 }
