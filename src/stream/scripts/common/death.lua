-- What a dead letter says of its death, told by its place: the last fields of the entry, whatever those before them are
-- called. Letters of an earlier release do not tell of crash checks.
local death_names = { 'reason', 'error', 'attempts', 'crash_checks', 'handler', 'stream', 'group', 'entry', 'consumer',
  'first_delivered', 'at', 'replays' }
-- Answers the values in that order, and how many fields and values stand before them; nothing where it is no letter.
local function death_of(fields)
  for checks = 1, 0, -1 do
    local before = #fields - 2 * (#death_names - 1 + checks)
    local at, values = before + 1, {}
    for i, name in ipairs(death_names) do
      if i == 4 and checks == 0 then
        values[i] = '0'
      elseif before >= 0 and fields[at] == 'dead.' .. name then
        values[i], at = fields[at + 1], at + 2
      else
        break
      end
    end
    if #values == #death_names then return values, before end
  end
end
