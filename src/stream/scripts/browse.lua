-- Reads the heads of dead letters: what there is to know of them without their data. Reads one entry at a time,
-- so that what lies in memory at once is one entry, however large the others are.
-- Behind: common/ids
-- KEYS: dead
-- ARGV: id to begin at, id to end at, most letters to look at, most bytes, type or '', reason or ''
-- Answers: heads {id, type or false, how many fields, bytes, the eleven values}, id to continue at or false,
--          how many entries are no dead letters
local most, room, event_type, reason = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local names = { 'reason', 'error', 'attempts', 'handler', 'stream', 'group', 'entry', 'consumer', 'first_delivered',
  'at', 'replays' }
local out, strangers, looked, bytes, from = {}, 0, 0, 0, ARGV[1]

local function values(fields)
  local n, v = #fields, {}
  if n < 22 then return nil end
  for i, name in ipairs(names) do
    if fields[n - 23 + 2 * i] ~= 'dead.' .. name then return nil end
    v[i] = fields[n - 22 + 2 * i]
  end
  return v
end

while from and looked < most and bytes < room do
  local entry = redis.call('XRANGE', KEYS[1], from, ARGV[2], 'COUNT', 1)[1]
  if not entry then return { out, false, strangers } end
  local id, fields = entry[1], entry[2]
  looked, from = looked + 1, just_above(id)
  local size = 0
  for _, s in ipairs(fields) do size = size + #s end
  bytes = bytes + size
  local v = values(fields)
  if not v then
    strangers = strangers + 1
  elseif reason == '' or v[1] == reason then
    local count = #fields - 22
    if fields[1] == 'streamhand.packed' then
      local ok, unpacked = pcall(cmsgpack.unpack, fields[2])
      if ok and type(unpacked) == 'table' then fields, count = unpacked, #unpacked end
    end
    -- What an earlier replay put behind the original fields is none of them.
    if v[11] ~= '0' and fields[count - 7] == 'replay.entry' and fields[count - 1] == 'replay.by' then count = count - 8 end
    local found = false
    for i = 1, count, 2 do
      if fields[i] == 'type' then
        found = fields[i + 1]
        break
      end
    end
    if event_type == '' or found == event_type then out[#out + 1] = { id, found, count / 2, size, v } end
  end
end
return { out, from or false, strangers }
