-- Takes parked entries whose time has come: those with (parked), and those that are nobody's (the group or
-- its pending list was deleted; FORCE brings them back). Other due times are stale and are dropped, and so are those of
-- entries that are to be delivered as new: the group was set back below them.
-- Behind: common/pending, common/ids, common/rights, common/reading, common/clock
-- KEYS: stream, retry, failures, again (the stream of replayed entries; the stream itself where there is none),
--       paused, scheduled, waiting, asked
-- ARGV: group, consumer, most entries, most bytes, what the clock should show (ms) and how far it may be off: nothing
--       is due where it is further off
-- Answers: entries {id, count, fields, record}, ids lost to trimming, next due time (ms) or false, now (ms),
--          length of the stream of replayed entries, what is paused, next due time (ms) of a scheduled event or
--          false, whether entries wait for a worker that can handle them (0|1), what is asked of workers
local stream, retry, failures, group, me = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
local now = clock_ms()
-- Every worker asks this of every stream about once a second, and most of the time there is nothing at all.
local again_is = KEYS[4] ~= stream and KEYS[4] or retry
if redis.call('EXISTS', retry, KEYS[5], KEYS[6], again_is, KEYS[7], KEYS[8] or retry) == 0 then
  return { {}, {}, false, string.format('%.0f', now), 0, {}, false, 0, {} }
end
-- Whether somebody looks, and what an operator asks of workers: never in the way of an entry.
local asked = KEYS[8] and redis.pcall('HGETALL', KEYS[8]) or {}
if asked.err then asked = {} end
-- Looked at here, so that a pause takes nobody a command of its own, and nothing is woken against it.
local paused, ended = redis.call('HKEYS', KEYS[5]), {}
if #paused > 0 then
  local notes = redis.pcall('HGETALL', KEYS[5])
  if not notes.err then paused = {} end
  for i = 1, #notes, 2 do
    local till = string.match(notes[i + 1], '"until_ms":(%d+)')
    table.insert(till and tonumber(till) <= now and ended or paused, notes[i])
  end
  -- The first worker that sees that its time is over takes it away, for those of an earlier release. Where that is
  -- refused it has ended all the same.
  if #ended > 0 then redis.pcall('HDEL', KEYS[5], unpack(ended)) end
end
local most = math.min(tonumber(ARGV[3]), 500)
for _, what in ipairs(paused) do if what == 'stream' then most = 0 end end
if is_off(now, ARGV[5], ARGV[6]) then most = 0 end
local first = redis.call('ZRANGE', retry, 0, 0, 'WITHSCORES')[2]
local ids = {}
if most > 0 and first and tonumber(first) <= now then
  redis.call('HLEN', failures) -- WRONGTYPE surfaces before the first write
  local no = lacks(stream, 'XCLAIM XRANGE', failures, 'HGET HMGET HDEL', retry, 'ZREM')
  if no then return no end
  ids = redis.call('ZRANGEBYSCORE', retry, '-inf', string.format('%.0f', now), 'LIMIT', 0, most)
end
local out, trimmed, done, last, bytes = {}, {}, {}, nil, 0
-- Which are the first and the last need not be right for that, so they go by their letters.
local parked = {}
if #ids > 1 then
  local from, to = ids[1], ids[1]
  for _, id in ipairs(ids) do
    if id < from then from = id elseif id > to then to = id end
  end
  parked = pending_between(stream, group, from, to, 2 * #ids, '(parked)')
end
-- Takes what is with (parked), so many at once: XCLAIM adds one to their counts.
local claim, counts, largest, limit = {}, {}, 0, tonumber(ARGV[4])
local function take_them()
  if #claim == 0 then return end
  local records, found = redis.call('HMGET', failures, unpack(claim)), {}
  for _, entry in ipairs(redis.call('XCLAIM', stream, group, me, 0, unpack(claim))) do found[entry[1]] = entry[2] end
  local gone = {}
  for i, id in ipairs(claim) do
    local fields, size = found[id], 0
    if fields then
      out[#out + 1] = { id, counts[i], fields, records[i] }
      for _, v in ipairs(fields) do size = size + #v end
      bytes, largest = bytes + size, math.max(largest, size)
    else
      trimmed[#trimmed + 1], gone[#gone + 1] = id, id
    end
  end
  if #gone > 0 then redis.call('HDEL', failures, unpack(gone)) end
  claim, counts = {}, {}
end
for _, id in ipairs(ids) do
  if bytes > limit then break end
  last = last or read_up_to(stream, group)
  local is_above = not (id <= last and #id <= #last) and above(id, last)
  local count = parked[id]
  if count and not is_above then
    -- At first one by one: how large they are is seen by those before.
    claim[#claim + 1], counts[#counts + 1] = id, count + 1
    if #claim > #out or #claim >= 100 or bytes + #claim * largest > limit then take_them() end
  else
    take_them()
    local p = redis.call('XPENDING', stream, group, id, id, 1) -- NOGROUP is raised before the first write
    local take
    count = 1
    if #p == 1 then
      -- Were one that is yet to be delivered taken now, its delivery would take it from whoever has it then. It goes on
      -- when it is delivered: see known.lua.
      take = p[1][2] == '(parked)' and not is_above
      count = p[1][4] + 1
    else
      -- An id above the last delivered one will be delivered as new, unless it is gone.
      take = not is_above or #redis.call('XRANGE', stream, id, id) == 0
      -- It goes on at the count it was parked with, or its attempts would begin again.
      local record = redis.call('HGET', failures, id)
      local parked_at = record and tonumber(string.match(record, '^%d+ %d+ (%d+) ')) or 0
      count = parked_at + 1
    end
    if take then
      local claimed = redis.call('XCLAIM', stream, group, me, 0, id, 'FORCE', 'RETRYCOUNT', count)
      if #claimed == 1 then
        out[#out + 1] = { id, count, claimed[1][2], redis.call('HGET', failures, id) }
        for _, v in ipairs(claimed[1][2]) do bytes = bytes + #v end
      else
        trimmed[#trimmed + 1] = id
        redis.call('HDEL', failures, id)
      end
    end
  end
  done[#done + 1] = id
end
take_them()
if #done > 0 then
  redis.call('ZREM', retry, unpack(done))
  first = redis.call('ZRANGE', retry, 0, 0, 'WITHSCORES')[2]
end
local again = redis.pcall('XLEN', KEYS[4])
if type(again) == 'table' then again = 0 end
-- Who adds what is scheduled is to find what is in the way of it, and nothing else is to wait for that.
local scheduled = redis.pcall('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')
return { out, trimmed, first or false,
  string.format('%.0f', now), again, paused, scheduled.err and '0' or scheduled[2] or false,
  redis.call('EXISTS', KEYS[7]), asked }
