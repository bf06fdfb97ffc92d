-- Brings back dead letters that were purged, the first of them first. They are the letters they were, under new ids.
-- Behind: common/rights
-- KEYS: dead, protocol, purged (the letters of this purge), purges (what is known of each purge)
-- ARGV: protocol number, most letters, most bytes, name of the purge
-- Answers: how many came back, how many are left, and the error that stopped it or false; or the protocol number of a
--          newer release
local dead, purged, purges = KEYS[1], KEYS[3], KEYS[4]
local spoken = redis.call('GET', KEYS[2])
if spoken and tonumber(spoken) > tonumber(ARGV[1]) then return spoken end
redis.call('XLEN', dead) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', purged)
local no = lacks(dead, 'XADD', purged, 'XDEL DEL', purges, 'HDEL')
if no then return no end
local back, bytes, err = 0, 0, false
while back < tonumber(ARGV[2]) and bytes < tonumber(ARGV[3]) do
  local letter = redis.call('XRANGE', purged, '-', '+', 'COUNT', 1)[1]
  if not letter then break end
  for _, s in ipairs(letter[2]) do bytes = bytes + #s end
  local added = redis.pcall('XADD', dead, '*', unpack(letter[2]))
  if type(added) == 'table' then
    err = added.err
    break
  end
  redis.call('XDEL', purged, letter[1])
  back = back + 1
end
local left = redis.call('XLEN', purged)
if left == 0 then
  redis.call('DEL', purged)
  redis.call('HDEL', purges, ARGV[4])
end
return { back, left, err }
