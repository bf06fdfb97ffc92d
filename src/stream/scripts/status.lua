-- Says how a stream and its group are doing, all of it at one moment.
-- Behind: common/ids, common/lag
-- KEYS: stream, retry, dead, again, protocol, failures, position, paused, breakers, scheduled, its events, trimmed
-- ARGV: group, most entries and most bytes to look at where the lag has to be counted
-- Answers: type of the key, now (ms), parked, next due time (ms) or false, dead, again, protocol number or false,
--          length, {last delivered id, pending, lowest pending id or false, lag or false, whether the lag is at least
--          that (0|1), consumers {name, pending, idle in ms}} or false where there is no group, {key, type} of every
--          key of the group that holds something else than it should, what is paused, breakers that are not closed,
--          scheduled events, next due time of one or false
local stream, group = KEYS[1], ARGV[1]
-- What is of another type than it should be is as good as not there; the key of that name is not ours.
local function number(...)
  local answer = redis.pcall(...)
  return type(answer) == 'number' and answer or 0
end

local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local due = redis.pcall('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] or false
local later = redis.pcall('ZRANGE', KEYS[10], 0, 0, 'WITHSCORES')[2] or false
local spoken = redis.pcall('GET', KEYS[5])
local kind = redis.call('TYPE', stream).ok
local out = { kind, now, number('ZCARD', KEYS[2]), due, number('XLEN', KEYS[3]), number('XLEN', KEYS[4]),
  type(spoken) == 'string' and spoken or false, 0, false, {}, {}, {}, number('ZCARD', KEYS[10]), later }
for i, at in ipairs({ 8, 9 }) do
  local all = redis.pcall('HGETALL', KEYS[at])
  if not all.err then out[10 + i] = all end
end
for i, right in ipairs({ false, 'zset', 'stream', 'stream', 'string', 'hash', 'hash', 'hash', 'hash', 'zset',
  'hash' }) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if right and found ~= right and found ~= 'none' then table.insert(out[10], { KEYS[i], found }) end
end
if kind ~= 'stream' then return out end

local seals = seals_of(stream)
out[8] = redis.call('XLEN', stream) - seals
local info
for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local pairs_of = {}
  for i = 1, #g, 2 do pairs_of[g[i]] = g[i + 1] end
  if pairs_of.name == group then info = pairs_of end
end
if not info then return out end

local about, of = redis.call('XINFO', 'STREAM', stream), {}
for i = 1, #about, 2 do of[about[i]] = about[i + 1] end
local settled = redis.pcall('HGET', KEYS[12], 'settled')
if type(settled) ~= 'string' then settled = nil end
local lag, at_least = lag_of(stream, of, info, settled, tonumber(ARGV[2]), tonumber(ARGV[3]))
if lag > 0 then lag = lag - seals end

local consumers = {}
for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local of = {}
  for i = 1, #c, 2 do of[c[i]] = c[i + 1] end
  consumers[#consumers + 1] = { of.name, of.pending, of.idle }
end
out[9] = { info['last-delivered-id'], info.pending, redis.call('XPENDING', stream, group)[2] or false, lag, at_least, consumers }
return out
