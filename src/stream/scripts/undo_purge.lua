-- Brings back dead letters that were purged, the first of them first. They are the letters they were, under new ids, with
-- what was noted of them, and hold their subjects if they did.
-- Behind: common/rights
-- KEYS: dead, protocol, purged (the letters of this purge), purges (what is known of each purge), notes, which letters hold
--       their subjects
-- ARGV: protocol number, most letters, most bytes, name of the purge
-- Answers: how many came back, how many are left, and the error that stopped it or false; or the protocol number of a
--          newer release
local dead, purged, purges = KEYS[1], KEYS[3], KEYS[4]
local spoken = redis.call('GET', KEYS[2])
if spoken and tonumber(spoken) > tonumber(ARGV[1]) then return spoken end
redis.call('XLEN', dead) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', purged)
redis.call('HLEN', KEYS[5])
redis.call('HLEN', KEYS[6])
local no = lacks(dead, 'XADD', KEYS[5], 'HSET', KEYS[6], 'HSET', purged, 'XDEL DEL', purges, 'HDEL')
if no then return no end
local back, bytes, err = 0, 0, false
while back < tonumber(ARGV[2]) and bytes < tonumber(ARGV[3]) do
  local letter = redis.call('XRANGE', purged, '-', '+', 'COUNT', 1)[1]
  if not letter then break end
  for _, s in ipairs(letter[2]) do bytes = bytes + #s end
  local fields, noted = letter[2], nil
  local n = #fields
  if fields[n - 1] == 'streamhand.notes' then
    local ok, unpacked = pcall(cmsgpack.unpack, fields[n])
    noted = ok and type(unpacked) == 'table' and unpacked
    fields[n], fields[n - 1] = nil, nil
  end
  local added = redis.pcall('XADD', dead, '*', unpack(fields))
  if type(added) == 'table' then
    err = added.err
    break
  end
  if noted and noted.held then
    redis.call('HSET', KEYS[6], added, noted.held)
    noted.held = nil
  end
  for name, value in pairs(noted or {}) do redis.call('HSET', KEYS[5], added .. ' ' .. name, value) end
  redis.call('XDEL', purged, letter[1])
  back = back + 1
end
local left = redis.call('XLEN', purged)
if left == 0 then
  redis.call('DEL', purged)
  redis.call('HDEL', purges, ARGV[4])
end
return { back, left, err }
