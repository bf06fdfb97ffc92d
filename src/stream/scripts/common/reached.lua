-- The highest position that a public stream ever gave, or that a view has passed there, is kept in a key beside it: a
-- stream that is deleted, or renamed, takes its last id along, and its ids may have run ahead of the clock.

-- What that key holds, where it is a position.
local function highest(held)
  return type(held) == 'string' and string.match(held, '^%d+%-%d+$') or nil
end
