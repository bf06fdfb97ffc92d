-- Renews the lease of what this worker holds between two ids, and says what it no longer holds.
-- KEYS: stream, position, protocol
-- ARGV: group, consumer, first id, last id, whether to note the position (0|1), then id and count of every held
--       entry in that range
-- Answers: {id, nobody|taken|trimmed, count} of what is lost, how many are pending with the consumer that it did not
--          name, the protocol number or false, why the position can't be noted or false, and where the group was found
--          its name or false, how far it has read, and what was to be noted of this worker
local stream, position, group, me = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local held, mine, lost, ok, extra = {}, {}, {}, {}, 0
for a = 6, #ARGV, 2 do held[ARGV[a]] = true end
for _, p in ipairs(redis.call('XPENDING', stream, group, ARGV[3], ARGV[4], 2000, me)) do
  mine[p[1]] = p[4]
  if not held[p[1]] then extra = extra + 1 end
end
for a = 6, #ARGV, 2 do
  -- An id can stand twice: a delivery that lapsed and is still running, and the one that came after it.
  local id, count = ARGV[a], tonumber(ARGV[a + 1])
  if mine[id] == count then
    ok[#ok + 1] = id
  else
    local p = redis.call('XPENDING', stream, group, id, id, 1)
    if #p == 0 then
      lost[#lost + 1] = { id, 'nobody', count }
    elseif p[1][2] ~= me or p[1][4] ~= count then
      lost[#lost + 1] = { id, 'taken', count }
    else
      ok[#ok + 1] = id
    end
  end
end
for a = 1, #ok, 1000 do
  local args = { 'XCLAIM', stream, group, me, '0' }
  for b = a, math.min(a + 999, #ok) do args[#args + 1] = ok[b] end
  args[#args + 1] = 'JUSTID'
  local kept = {}
  for _, id in ipairs(redis.call(unpack(args))) do kept[id] = true end
  for b = a, math.min(a + 999, #ok) do
    if not kept[ok[b]] then lost[#lost + 1] = { ok[b], 'trimmed', mine[ok[b]] or 0 } end
  end
end
local unnoted
if ARGV[5] == '1' then
  local lowest = redis.call('XPENDING', stream, group, '-', '+', 1, me)
  -- Before Redis 7.2 a blocked read that brings nothing is no sign of life. Asking for what is pending with this
  -- worker beyond all ids is one. Whoever reads the list of consumers wants it; leases can be renewed without. Where
  -- something is pending the renewal itself is a sign, and reading it would count as a delivery.
  if #lowest == 0 then
    redis.pcall('XREADGROUP', 'GROUP', group, me, 'COUNT', 1, 'STREAMS', stream, '18446744073709551615-0')
  end
  -- Where a new group would have to begin if this one were destroyed. pcall: a server short of memory
  -- refuses it, as one does that lacks a right, and leases must be renewed all the same.
  -- Noted is the lowest that is pending with this worker, held or not, or else how far the group has read: all
  -- that came to this worker below is settled.
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  unnoted = groups.err
  for _, g in ipairs(groups) do
    local info = {}
    for i = 1, #g, 2 do info[g[i]] = g[i + 1] end
    if info.name == group then
      local read = info['last-delivered-id']
      local note = #lowest == 1 and 'from ' .. lowest[1][1] or 'after ' .. read
      local noted = redis.pcall('HSET', position, 'last', read, me, note)
      unnoted = type(noted) == 'table' and noted.err or false
      local name = redis.pcall('HGET', position, 'name')
      if type(name) == 'table' then name = false end
      return { lost, extra, redis.call('GET', KEYS[3]), unnoted, name, read, note }
    end
  end
end
return { lost, extra, redis.call('GET', KEYS[3]), unnoted or false }
