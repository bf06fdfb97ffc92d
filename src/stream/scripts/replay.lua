-- Gives dead letters back to their group, letter by letter: what is done stays done whatever becomes of the next, and
-- what is gone is not replayed again.
-- Behind: common/ids, common/death, common/fingerprint, common/left, common/replay_letter, common/rights
-- KEYS: dead, again, protocol, notes, groups, runs, out (copies of runs that are not settled)
-- ARGV: protocol number, by whom, most bytes, then of every letter: id, '<dead.entry> <dead.at>' or '' for any
-- Answers: of every letter it came to the id of its copy, or false where it is gone; the error that stopped it or
--          false; the protocol number of a newer release or false
local dead, again, notes = KEYS[1], KEYS[2], KEYS[4]
local spoken = redis.call('GET', KEYS[3])
if spoken and tonumber(spoken) > tonumber(ARGV[1]) then return { {}, false, spoken } end
redis.call('XLEN', dead) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', again)
redis.call('HLEN', notes)
local no = lacks(again, 'XADD', dead, 'XDEL', notes, 'HMGET HDEL')
if no then return no end

local copies, bytes = {}, 0
for a = 4, #ARGV, 2 do
  if bytes > tonumber(ARGV[3]) then break end
  local copy, size = replay_letter(dead, again, notes, KEYS[5], KEYS[6], KEYS[7], ARGV[a], ARGV[a + 1], ARGV[2])
  if type(copy) == 'table' then return { copies, copy.err, false } end
  copies[#copies + 1], bytes = copy, bytes + size
end
return { copies, false, false }
