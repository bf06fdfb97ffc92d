-- Reads the heads of dead letters: what there is to know of them without their data. Reads one entry at a time,
-- so that what lies in memory at once is one entry, however large the others are.
-- Behind: common/ids, common/death, common/fingerprint
-- KEYS: dead
-- ARGV: id to begin at, id to end at, most letters to look at, most bytes, type or '', reason or '', the id of the
--       entry or the event it is of or '', bytes after which what is answered of a name is cut or '', fingerprint or '',
--       whether errors are told masked besides ('1'|'')
-- Answers: heads {id, type or false, how many fields, bytes, the twelve values, fingerprint, schema version or
--          false, masked error or false}, id to continue at or false, how many entries are no dead letters
local most, room, event_type, reason = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local about, short, wanted = ARGV[7] or '', ARGV[8] and tonumber(ARGV[8]), ARGV[9] or ''
local out, strangers, looked, bytes, from = {}, 0, 0, 0, ARGV[1]

while from and looked < most and bytes < room do
  local entry = redis.call('XRANGE', KEYS[1], from, ARGV[2], 'COUNT', 1)[1]
  if not entry then return { out, false, strangers } end
  local id, fields = entry[1], entry[2]
  looked, from = looked + 1, just_above(id)
  local size = 0
  for _, s in ipairs(fields) do size = size + #s end
  bytes = bytes + size
  local v, count = death_of(fields)
  if not v then
    strangers = strangers + 1
  elseif reason == '' or v[1] == reason then
    fields, count = original_of(fields, v, count)
    local found, is_about = false, about == '' or v[8] == about
      or (fields[count + 1] == 'replay.entry' and fields[count + 2] == about)
    local version
    for i = 1, count, 2 do
      local name = fields[i]
      if name == 'type' then
        found = found or fields[i + 1]
      elseif name == 'schemaversion' then
        version = version or fields[i + 1]
      elseif name == 'id' and fields[i + 1] == about then
        is_about = true
      end
    end
    is_about = is_about and (event_type == '' or found == event_type)
    local fingerprint, error
    if is_about then fingerprint, error = fingerprint_of(v, found) end
    if is_about and (wanted == '' or fingerprint == wanted) then
      if short then
        found = found and string.sub(found, 1, short)
        -- Errors are cut by who writes them.
        for i, value in ipairs(v) do v[i] = i == 2 and value or string.sub(value, 1, short) end
      end
      out[#out + 1] = { id, found, count / 2, size, v, fingerprint, version or false,
        ARGV[10] == '1' and error }
    end
  end
end
return { out, from or false, strangers }
