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

-- Whether the projection is a group of the stream. It is not where that was made anew.
local function is_group(stream, name)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if map(group).name == name then return true end
  end
  return false
end

-- The public stream: its last id, how many entries were ever added, and whether some behind a position were deleted
-- that were not read there. `read`: how many of all up to the position, -1 where that is not known. `group`: its name
-- there, nil for a view that is not served yet. `unsure`: it has been made anew, and what was highest before is not
-- known any more: some of what has come since may stand below the position, and be in no batch.
local function public_of(stream, reached, position, read, group)
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
  local first, top = of['first-entry'], highest(redis.pcall('GET', reached))
  -- What was counted is of a stream that is no longer there.
  if group and not is_group(stream, group) then out.is_new, read = true, -1 end
  out.unsure = (top or out.last ~= '0-0' and above(position, out.last)) and above(position, top or '0-0') and out.added > 0
  -- It is left as it is: others are to find out, too.
  if out.unsure then return out end
  local floor = top and above(top, position) and top or position
  if not top or floor ~= top then
    -- Whoever makes the stream anew has to know how far it was.
    local known = above(out.last, floor) and out.last or floor
    if known ~= '0-0' then redis.call('SET', reached, known) end
  end
  if out.last == '0-0' then
    -- Nobody has read it yet, for then its end would have been set. One that was made for its groups says nothing of the
    -- one that was there before it, whose last entries may stand a millisecond from now, for each began so far ahead.
    -- What comes has a place behind that, and behind all that was reached before.
    local ahead = text(clock() + 1) .. '-18446744073709551615'
    out.last, out.gap = above(floor, ahead) and floor or ahead, true
    redis.call('XSETID', stream, out.last, 'MAXDELETEDID', just_below(out.last))
  elseif above(floor, out.last) then
    -- It was made anew, by others, below what it had reached.
    out.last, out.gap = floor, above(floor, position)
    redis.call('XSETID', stream, floor, 'MAXDELETEDID', just_below(floor))
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

-- Nobody runs it any more, for a reason; where it is held, until it is resumed or built anew.
local function halt(checkpoint, at, why, held)
  redis.call('HSET', checkpoint, 'state', 'stopped', 'stopped.at', at, 'stopped.why', why, 'stopped.held', held)
  redis.call('HDEL', checkpoint, 'runner', 'until', 'noted')
end
local function halt_unsure(checkpoint, public, position)
  local why = 'the public stream was made anew, and ends at ' .. public.last .. '; it is not known any more how far it was, '
    .. 'and events may be missing behind ' .. position .. ': build the view anew'
  halt(checkpoint, position, why, '1')
  return { 'stopped', position, why }
end

-- Lets trimming and the lag know how far the projection is: it is a group of the public stream.
local function stand(stream, name, position, read)
  local set = redis.pcall('XGROUP', 'SETID', stream, name, position, 'ENTRIESREAD', read)
  if set.err then
    redis.pcall('XGROUP', 'CREATE', stream, name, position, 'MKSTREAM', 'ENTRIESREAD', read)
  end
end

-- Who makes the public stream anew begins above all that a view has passed, whoever put it there.
local function passed(reached, position)
  local top = highest(redis.pcall('GET', reached))
  if not top or above(position, top) then redis.call('SET', reached, position) end
end
