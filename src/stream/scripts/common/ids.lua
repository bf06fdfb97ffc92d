-- Whether an id is higher than another. By digits: as numbers of Lua ids do not compare exactly.
local function above(x, y)
  local a, b = string.match(x, '^(%d+)-(%d+)$')
  local c, d = string.match(y, '^(%d+)-(%d+)$')
  if a ~= c then return #a > #c or (#a == #c and a > c) end
  return #b > #d or (#b == #d and b > d)
end
