-- What makes dead letters alike: reason, type, handler, and the error without what differs from one to the next. Letters
-- that are alike have one fingerprint. It is kept nowhere with a letter, so that these rules may change.

-- The error with numbers, ids and what is quoted taken out. A word with a digit in it is a number or an id.
local function masked(error)
  local text = string.gsub(string.sub(error, 1, 1000), '%c+', ' ')
  text = string.gsub(text, '"[^"]*"', '"…"')
  text = string.gsub(text, '`[^`]*`', '`…`')
  -- Not the one in `can't`.
  text = string.gsub(text, "([%s%(%[{=:,])'[^']*'", "%1'…'")
  text = string.gsub(text, '[%w_%.%-]+', function(word)
    if string.find(word, '%d') then return '#' end
  end)
  -- A list of them may be of any length.
  local again
  repeat text, again = string.gsub(text, '#[%s,;]+#', '#') until again == 0
  return string.sub(text, 1, 240)
end

-- The original fields of a letter, and how many names and values of them there are: unpacked, and without what an earlier
-- replay put behind them. `v` and `before`: what death_of answers.
local function original_of(fields, v, before)
  local count = before
  if fields[1] == 'streamhand.packed' then
    local ok, unpacked = pcall(cmsgpack.unpack, fields[2])
    if ok and type(unpacked) == 'table' then fields, count = unpacked, #unpacked end
  end
  if v[#v] ~= '0' and fields[count - 7] == 'replay.entry' and fields[count - 1] == 'replay.by' then count = count - 8 end
  return fields, count
end

local function first_named(fields, count, name)
  for i = 1, count, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- The fingerprint of a letter of this type, and its masked error. Most letters that one script meets are alike.
local fingerprints = {}
local function fingerprint_of(v, event_type)
  local what = table.concat({ v[1], event_type or '', v[5], v[2] }, '\0')
  local known = fingerprints[what]
  if not known then
    local error = masked(v[2])
    known = { string.sub(redis.sha1hex(table.concat({ v[1], event_type or '', v[5], error }, '\0')), 1, 12), error }
    fingerprints[what] = known
  end
  return known[1], known[2]
end
