-- What the steps of a projection have in common: how far it is, and whether it has seen all that was published.
local function map(list)
  local of = {}
  for i = 1, #list, 2 do of[list[i]] = list[i + 1] end
  return of
end
local function text(number) return string.format('%.0f', number) end
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The public stream: its last id, how many entries were ever added, and whether some behind a position were deleted
-- that were not read there. `read`: how many of all up to the position, -1 where that is not known.
local function public_of(stream, position, read)
  local info = redis.pcall('XINFO', 'STREAM', stream)
  if info.err then
    if not string.find(info.err, 'no such key', 1, true) then return nil, info end
    -- What was on it, if it ever was there, is gone.
    redis.call('XGROUP', 'CREATE', stream, 'new', '$', 'MKSTREAM')
    redis.call('XGROUP', 'DESTROY', stream, 'new')
    info = redis.call('XINFO', 'STREAM', stream)
  end
  local of = map(info)
  local out = { last = of['last-generated-id'], added = of['entries-added'] }
  local first = of['first-entry']
  if out.last == '0-0' then
    -- Nobody has read it yet, for then its end would have been set. One that was made for its groups says nothing of the
    -- one that was there before it, whose last entries may stand a millisecond from now, for each began so far ahead.
    -- What comes has a place behind that.
    out.last, out.gap = text(clock() + 1) .. '-18446744073709551615', true
    redis.call('XSETID', stream, out.last)
  elseif above(of['max-deleted-entry-id'], position) then
    out.gap = true
  elseif first and not above(first[1], position) then
    out.gap = false
  else
    -- All that is there lies behind the position: as much as was added since, or some is gone. A count that a double
    -- may not hold is not known.
    out.gap = read < 0 or out.added >= 9007199254740992 or out.added - read ~= of.length
  end
  return out
end

-- Lets trimming and the lag know how far the projection is: it is a group of the public stream.
local function stand(stream, name, position, read)
  local set = redis.pcall('XGROUP', 'SETID', stream, name, position, 'ENTRIESREAD', read)
  if set.err then
    redis.pcall('XGROUP', 'CREATE', stream, name, position, 'MKSTREAM', 'ENTRIESREAD', read)
  end
end
