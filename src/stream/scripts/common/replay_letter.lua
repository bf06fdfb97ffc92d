-- Replays one dead letter: the original fields, edited where they were, and last whose copy it is, go to
-- the stream that only this group reads, and the letter goes.

-- Cuts off what an earlier replay put behind the fields, and answers whose copy they were and its first delivery.
local function earlier(fields)
  local n = #fields
  if fields[n - 7] ~= 'replay.entry' or fields[n - 5] ~= 'replay.count' or fields[n - 3] ~= 'replay.first_delivered'
    or fields[n - 1] ~= 'replay.by' then return nil end
  local entry, first = fields[n - 6], fields[n - 2]
  for i = n, n - 7, -1 do fields[i] = nil end
  return entry, first
end

-- Puts edited values in the place of the original ones, which stay behind them: what was there before the first edit is
-- lost by no later one. `edit` has names and values in turn, `edited` who did it and when, with a space between.
local function apply_edit(fields, edit, edited)
  local function place_of(name)
    for i = 1, #fields, 2 do
      if fields[i] == name then return i end
    end
  end
  local function put(name, value)
    local at = place_of(name) or #fields + 1
    fields[at], fields[at + 1] = name, value
  end
  for i = 1, #edit, 2 do
    local name, at = edit[i], place_of(edit[i])
    if not at then
      local added = place_of('edited.added')
      put('edited.added', added and fields[added + 1] .. ' ' .. name or name)
      put(name, edit[i + 1])
    else
      if not place_of('edited.was.' .. name) then
        fields[#fields + 1], fields[#fields + 2] = 'edited.was.' .. name, fields[at + 1]
      end
      fields[at + 1] = edit[i + 1]
    end
  end
  local at, by = string.match(edited, '^(%S+) (.*)$')
  put('edited.by', by or edited)
  put('edited.at', at or '')
end

-- Answers the id of its copy, or false where it is gone, or is another than the one of this mark ('' for any); an error as
-- a table; and how many bytes it had.
local function replay_letter(dead, again, notes, groups, runs, out, id, mark, by)
  local letter = redis.call('XRANGE', dead, id, id)[1]
  local fields = letter and letter[2] or {}
  local n, bytes, whole = #fields, 0, {}
  for i, s in ipairs(fields) do bytes, whole[i] = bytes + #s, s end
  local v, before = death_of(fields)
  local replays = v and tonumber(v[12])
  local is = v and v[8] .. ' ' .. v[11]
  if not replays or (mark ~= '' and mark ~= is) then return false, bytes end
  local noted = notes_of(notes, id, is)
  local entry, first = v[8], v[10]
  for i = n, before + 1, -1 do fields[i] = nil end
  local packed = fields[1] == 'streamhand.packed'
  if replays > 0 then
    local of, since = earlier(fields)
    if not of and packed then
      -- A copy that had just room for its four fields was packed with them when it was buried.
      local ok, unpacked = pcall(cmsgpack.unpack, fields[2])
      if ok and type(unpacked) == 'table' then
        of, since = earlier(unpacked)
        if of then fields[2] = cmsgpack.pack(unpacked) end
      end
    end
    entry, first = of or entry, since or first
  end
  if noted.edit then
    local ok, edit = pcall(cmsgpack.unpack, noted.edit)
    local readable, of = true, fields
    if packed then readable, of = pcall(cmsgpack.unpack, fields[2]) end
    if not ok or type(edit) ~= 'table' or not readable or type(of) ~= 'table' then
      return { err = 'ERR the edit of the letter ' .. id .. ' does not unpack' }, bytes
    end
    apply_edit(of, edit, noted.edited or '')
    if packed then fields[2] = cmsgpack.pack(of) end
  end
  -- Lua's unpack ends at some 8,000 values.
  if #fields > 7000 then fields = { 'streamhand.packed', cmsgpack.pack(fields) } end
  local m = #fields
  for i, value in ipairs({
    'replay.entry', entry, 'replay.count', string.format('%.0f', replays + 1), 'replay.first_delivered', first,
    'replay.by', by,
  }) do fields[m + i] = value end
  local copy = redis.pcall('XADD', again, '*', unpack(fields))
  if type(copy) == 'table' then return copy, bytes end
  redis.call('XDEL', dead, id)
  left(id, whole, v, before, notes, groups, runs, out)
  return copy, bytes
end
