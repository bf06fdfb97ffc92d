-- Takes dead letters, and only those that are still the ones meant, from the dead letters to where they can be brought
-- back from for a while, with what is noted of them. Those that are held stay. Letter by letter: what is done stays done,
-- whatever becomes of the next.
-- Behind: common/ids, common/death, common/fingerprint, common/left, common/rights
-- KEYS: dead, protocol, purged (the letters of this purge), purges (what is known of each purge), notes, groups, runs, out,
--       which letters hold their subjects
-- ARGV: protocol number, most bytes, name of the purge, by whom, how long they can be brought back (ms), then of every
--       letter: id, '<dead.entry> <dead.at>'
-- Answers: of every letter it came to whether it was there (1|0) or is held (2), and the error that stopped it or false; or the protocol
--          number of a newer release
local dead, purged, purges, run, keep = KEYS[1], KEYS[3], KEYS[4], ARGV[3], tonumber(ARGV[5])
local spoken = redis.call('GET', KEYS[2])
if spoken and tonumber(spoken) > tonumber(ARGV[1]) then return spoken end
redis.call('XLEN', dead) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', purged)
redis.call('HLEN', KEYS[5])
redis.call('HLEN', KEYS[9])
local no = lacks(dead, 'XDEL', KEYS[5], 'HMGET HDEL', purged, 'XADD PEXPIRE', purges, 'HGETALL HSET HDEL PEXPIRE')
if no then return no end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local out, bytes, moved, err = {}, 0, 0, false
for a = 6, #ARGV, 2 do
  if bytes > tonumber(ARGV[2]) then break end
  local letter = redis.call('XRANGE', dead, ARGV[a], ARGV[a])[1]
  local fields = letter and letter[2] or {}
  for _, s in ipairs(fields) do bytes = bytes + #s end
  local v, before = death_of(fields)
  local is_it = v and ARGV[a + 1] == v[8] .. ' ' .. v[11]
  local noted = is_it and notes_of(KEYS[5], ARGV[a], ARGV[a + 1])
  if noted and noted.hold then
    out[#out + 1] = 2
  elseif noted then
    local n, whole = #fields, {}
    for i, s in ipairs(fields) do whole[i] = s end
    -- If it comes back it holds its subject again.
    local holds = redis.call('HGET', KEYS[9], ARGV[a]) or nil
    local is_noted = noted.of
    noted['held'] = holds
    if is_noted or holds then fields[n + 1], fields[n + 2] = 'streamhand.notes', cmsgpack.pack(noted) end
    local copy = redis.pcall('XADD', purged, '*', unpack(fields))
    if type(copy) == 'table' then
      err = copy.err
      break
    end
    redis.call('XDEL', dead, ARGV[a])
    left(ARGV[a], whole, v, before, KEYS[5], KEYS[6], KEYS[7], KEYS[8])
    moved = moved + 1
    out[#out + 1] = 1
  else
    out[#out + 1] = 0
  end
end
if moved > 0 then
  redis.call('PEXPIRE', purged, keep)
  -- '<when it began> <until when it can be undone> <letters> <by>'. What is over goes with the next purge.
  local first, count = now, 0
  local known, lasts = redis.call('HGETALL', purges), keep
  for i = 1, #known, 2 do
    local began, till, letters = string.match(known[i + 1], '^(%d+) (%d+) (%d+) ')
    if known[i] == run then
      first, count = began or now, letters or 0
    elseif not till or tonumber(till) <= now then
      redis.call('HDEL', purges, known[i])
    else
      lasts = math.max(lasts, till - now)
    end
  end
  redis.call('HSET', purges, run, string.format('%.0f %.0f %.0f ', first, now + keep, count + moved) .. ARGV[4])
  redis.call('PEXPIRE', purges, lasts)
end
return { out, err }
