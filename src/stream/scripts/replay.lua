-- Gives dead letters back to their group: of each the original fields, and last whose copy it is, go to the stream
-- that only this group reads, and the letter goes. Letter by letter: what is done stays done whatever becomes of
-- the next, and what is gone is not replayed again.
-- Behind: common/death, common/rights
-- KEYS: dead, again, protocol
-- ARGV: protocol number, by whom, most bytes, then of every letter: id, '<dead.entry> <dead.at>' or '' for any
-- Answers: of every letter it came to the id of its copy, or false where it is gone; the error that stopped it or
--          false; the protocol number of a newer release or false
local dead, again = KEYS[1], KEYS[2]
local spoken = redis.call('GET', KEYS[3])
if spoken and tonumber(spoken) > tonumber(ARGV[1]) then return { {}, false, spoken } end
redis.call('XLEN', dead) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', again)
local no = lacks(again, 'XADD', dead, 'XDEL')
if no then return no end

-- Cuts off what an earlier replay put behind the fields, and answers whose copy they were and its first delivery.
local function earlier(fields)
  local n = #fields
  if fields[n - 7] ~= 'replay.entry' or fields[n - 5] ~= 'replay.count' or fields[n - 3] ~= 'replay.first_delivered'
    or fields[n - 1] ~= 'replay.by' then return nil end
  local entry, first = fields[n - 6], fields[n - 2]
  for i = n, n - 7, -1 do fields[i] = nil end
  return entry, first
end

local out, bytes = {}, 0
for a = 4, #ARGV, 2 do
  if bytes > tonumber(ARGV[3]) then break end
  local letter = redis.call('XRANGE', dead, ARGV[a], ARGV[a])[1]
  local fields = letter and letter[2] or {}
  local n = #fields
  for _, s in ipairs(fields) do bytes = bytes + #s end
  local death, before = death_of(fields)
  local entry, first, at, replays
  if death then entry, first, at, replays = death[8], death[10], death[11], tonumber(death[12]) end
  if not replays
    or (ARGV[a + 1] ~= '' and ARGV[a + 1] ~= entry .. ' ' .. at) then
    out[#out + 1] = false
  else
    for i = n, before + 1, -1 do fields[i] = nil end
    if replays > 0 then
      local of, since = earlier(fields)
      if not of and fields[1] == 'streamhand.packed' then
        -- A copy that had just room for its four fields was packed with them when it was buried.
        local ok, unpacked = pcall(cmsgpack.unpack, fields[2])
        if ok and type(unpacked) == 'table' then
          of, since = earlier(unpacked)
          if of then fields[2] = cmsgpack.pack(unpacked) end
        end
      end
      entry, first = of or entry, since or first
    end
    -- Lua's unpack ends at some 8,000 values.
    if #fields > 7000 then fields = { 'streamhand.packed', cmsgpack.pack(fields) } end
    local m = #fields
    for i, v in ipairs({
      'replay.entry', entry, 'replay.count', string.format('%.0f', replays + 1), 'replay.first_delivered', first,
      'replay.by', ARGV[2],
    }) do fields[m + i] = v end
    local copy = redis.pcall('XADD', again, '*', unpack(fields))
    if type(copy) == 'table' then return { out, copy.err, false } end
    redis.call('XDEL', dead, ARGV[a])
    out[#out + 1] = copy
  end
end
return { out, false, false }
