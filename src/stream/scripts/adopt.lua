-- Hands over what is pending with this consumer and not held by it: the reply that delivered it got lost.
-- The delivery count stays. Sent only while nothing that delivers to this worker is outstanding.
-- Behind: common/ids, common/rights, common/known
-- KEYS: stream, failures, retry
-- ARGV: group, consumer, most entries, most bytes, then every held id
-- Answers: entries {id, count, fields, record}, ids lost to trimming, whether there are more (0|1), now (ms)
local stream, failures, group, me = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local most, room = tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('HLEN', failures) -- WRONGTYPE surfaces before the first write
local no = lacks(stream, 'XCLAIM', failures, 'HGET HDEL')
if no then return no end
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local held, out, trimmed, bytes, from = {}, {}, {}, 0, '-'
for a = 5, #ARGV do held[ARGV[a]] = true end
while true do
  local pending = redis.call('XPENDING', stream, group, from, '+', 1000, me)
  for _, p in ipairs(pending) do
    local id = p[1]
    if not held[id] then
      if #out >= most or bytes > room then return { out, trimmed, 1, now } end
      local what, count = nil, p[4]
      if count == 1 then what, count = goes_on(stream, group, me, KEYS[3], failures, id) end
      local claimed = what ~= 'parked' and redis.call('XCLAIM', stream, group, me, 0, id, 'RETRYCOUNT', count or p[4])
      if not claimed then
        -- It waits for its due time.
      elseif #claimed == 1 then
        for _, v in ipairs(claimed[1][2]) do bytes = bytes + #v end
        -- A large one comes alone: the server may cut it off, and what comes with it. It stays pending here.
        if #out > 0 and bytes > room then return { out, trimmed, 1, now } end
        out[#out + 1] = { id, count or p[4], claimed[1][2], redis.call('HGET', failures, id) }
      else
        trimmed[#trimmed + 1] = id
        redis.call('HDEL', failures, id)
      end
    end
  end
  from = #pending == 1000 and just_above(pending[1000][1])
  if not from then return { out, trimmed, 0, now } end
end
