-- Ids of entries, compared and moved by their digits. Both halves of an id go up to 2^64 - 1, and a number of Lua is a
-- double, exact below 2^53 only: a stream whose ids count nanoseconds is beyond that. So no id becomes a number here.
-- What scripts do hold as numbers can't come near 2^53: the server's clock in ms and in µs, delivery counts, and counts
-- of entries that are in memory.
local MAX = '18446744073709551615'

-- Whether one whole number is higher than another.
local function higher(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

local function parts(id) return string.match(id, '^(%d+)-(%d+)$') end

-- Whether an id is higher than another.
local function above(x, y)
  local a, b = parts(x)
  local c, d = parts(y)
  if a ~= c then return higher(a, c) end
  return higher(b, d)
end

-- The number itself where a double holds it for certain, else nil.
local function exact(digits) return #digits < 16 and tonumber(digits) or nil end

local function one_more(digits)
  local head, nines = string.match(digits, '^(.-)(9*)$')
  if head == '' then head = '0' end
  return string.sub(head, 1, -2) .. string.char(string.byte(head, -1) + 1) .. string.rep('0', #nines)
end

-- Of a number that is not 0.
local function one_less(digits)
  local head, zeros = string.match(digits, '^(.-)(0*)$')
  local less = string.sub(head, 1, -2) .. string.char(string.byte(head, -1) - 1) .. string.rep('9', #zeros)
  return #less > 1 and (string.gsub(less, '^0', '')) or less
end

-- The id that comes next, nil behind the last one there can be. Redis refuses '(' before that one.
local function just_above(id)
  local ms, seq = parts(id)
  if seq ~= MAX then return ms .. '-' .. one_more(seq) end
  return ms ~= MAX and one_more(ms) .. '-0' or nil
end

-- The id that comes before, nil before the first one there can be.
local function just_below(id)
  local ms, seq = parts(id)
  if seq ~= '0' then return ms .. '-' .. one_less(seq) end
  return ms ~= '0' and one_less(ms) .. '-' .. MAX or nil
end
