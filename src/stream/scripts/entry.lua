-- Says where an entry stands with a group, all of it at one moment.
-- KEYS: stream, retry, failures, guards
-- ARGV: group, id
-- Answers: now (ms), its fields or false, the last id the stream gave out, and of the group: the last id it was given or
--          false where there is none, {consumer, idle in ms, count} or false, due time (ms) or false, what is noted of its
--          failures or false, until when it is known that it came to its end after a failure (ms) or false
local stream, group, id = KEYS[1], ARGV[1], ARGV[2]
local t = redis.call('TIME')
local out = { string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)), false, '0-0', false, false, false, false, false }
local function score(key)
  local at = redis.pcall('ZSCORE', key, id)
  return type(at) == 'string' and at or false
end
local function of(list)
  local fields = {}
  for i = 1, #list, 2 do fields[list[i]] = list[i + 1] end
  return fields
end
if redis.call('TYPE', stream).ok == 'stream' then
  local entry = redis.call('XRANGE', stream, id, id)[1]
  out[2] = entry and entry[2] or false
  out[3] = of(redis.call('XINFO', 'STREAM', stream))['last-generated-id']
  for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = of(g)
    if info.name == group then
      out[4] = info['last-delivered-id']
      local p = redis.call('XPENDING', stream, group, id, id, 1)[1]
      if p then out[5] = { p[2], p[3], p[4] } end
    end
  end
end
out[6] = score(KEYS[2])
local record = redis.pcall('HGET', KEYS[3], id)
if type(record) == 'string' then out[7] = record end
out[8] = score(KEYS[4])
return out
