-- Says what there is to do in a stream for its group, all of it at one moment, in the same few steps however long it is.
-- Behind: common/ids, common/lag
-- KEYS: stream, trimmed, retry, dead, again, its due times, scheduled, paused
-- ARGV: group, most entries and most bytes to look at where the lag has to be counted
-- Answers: now (ms), type of the key, length, parked, of these due, dead letters, oldest of these or false, scheduled
--          events that are overdue, what is paused, {lag, whether it is at least that (0|1), pending, lowest pending id or
--          false, first unread id or false, consumers {name, pending, idle in ms}} or false where there is no group,
--          {length, of these due, consumers} of what was replayed
local stream, group = KEYS[1], ARGV[1]
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
-- What is of another type than it should be is as good as not there; the key of that name is not ours.
local function number(...)
  local answer = redis.pcall(...)
  return type(answer) == 'number' and answer or 0
end
local function map(list)
  local of = {}
  for i = 1, #list, 2 do of[list[i]] = list[i + 1] end
  return of
end
local function first(key, from)
  local entries = redis.pcall('XRANGE', key, from, '+', 'COUNT', 1)
  return entries[1] and entries[1][1] or false
end
local function consumers(key)
  local all, out = redis.pcall('XINFO', 'CONSUMERS', key, group), {}
  if all.err then return out end
  for _, c in ipairs(all) do
    local of = map(c)
    out[#out + 1] = { of.name, of.pending, of.idle }
  end
  return out
end

local paused = redis.pcall('HGETALL', KEYS[8])
local kind = redis.call('TYPE', stream).ok
local again = { number('XLEN', KEYS[5]), number('ZCOUNT', KEYS[6], '-inf', now), consumers(KEYS[5]) }
local out = { now, kind, 0, number('ZCARD', KEYS[3]), number('ZCOUNT', KEYS[3], '-inf', now), number('XLEN', KEYS[4]),
  first(KEYS[4], '-'), number('ZCOUNT', KEYS[7], '-inf', now), paused.err and {} or paused, false, again }
if kind ~= 'stream' then return out end
local seals = seals_of(stream)
out[3] = redis.call('XLEN', stream) - seals
local info
for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local of = map(g)
  if of.name == group then info = of end
end
if not info then return out end
local settled = redis.pcall('HGET', KEYS[2], 'settled')
local about = map(redis.call('XINFO', 'STREAM', stream))
local lag, at_least = lag_of(stream, about, info, type(settled) == 'string' and settled or nil,
  tonumber(ARGV[2]), tonumber(ARGV[3]))
if lag > 0 then lag = lag - seals end
local next_id = just_above(info['last-delivered-id'])
out[10] = { lag, at_least, info.pending, redis.call('XPENDING', stream, group)[2] or false,
  next_id and first(stream, next_id) or false, consumers(stream) }
return out
