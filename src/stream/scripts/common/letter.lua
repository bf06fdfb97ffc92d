-- What dead letters have in common, whoever writes them.
local days_of = {}
local function rfc3339(ms)
  local days = math.floor(ms / 86400000)
  local rest = ms - days * 86400000
  if not days_of[days] then
    -- civil_from_days, Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"
    local z = days + 719468
    local era = math.floor(z / 146097)
    local doe = z - era * 146097
    local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
    local mp = math.floor((5 * doy + 2) / 153)
    local day, month = doy - math.floor((153 * mp + 2) / 5) + 1, mp < 10 and mp + 3 or mp - 9
    local year = yoe + era * 400 + (month <= 2 and 1 or 0)
    days_of[days] = string.format('%04d-%02d-%02dT', year, month, day)
  end
  return days_of[days] .. string.format('%02d:%02d:%02d.%03dZ', math.floor(rest / 3600000), math.floor(rest / 60000) % 60,
    math.floor(rest / 1000) % 60, rest % 1000)
end

-- The fields of an entry with those of its death behind them.
local function letter(fields, death)
  -- Lua's unpack ends at some 8,000 values, so a very wide entry travels as one field.
  if #fields > 7000 then fields = { 'streamhand.packed', cmsgpack.pack(fields) } end
  local n = #fields
  for i, v in ipairs({
    'dead.reason', death.reason, 'dead.error', death.error, 'dead.attempts', death.attempts,
    'dead.crash_checks', death.checks or '0', 'dead.handler', death.handler, 'dead.stream', death.stream, 'dead.group', death.group, 'dead.entry', death.entry,
    'dead.consumer', death.consumer, 'dead.first_delivered', death.first, 'dead.at', death.at,
    'dead.replays', death.replays,
  }) do fields[n + i] = v end
  return fields
end
