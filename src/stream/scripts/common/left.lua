-- What is kept of dead letters beside them, and what becomes of it when a letter goes. Whatever stands in the way of that:
-- the letter is gone, and what is counted wrongly is counted anew (see groups.lua).
local note_names = { 'of', 'edit', 'edited', 'note', 'hold', 'assigned', 'errors' }

-- What is noted of a letter, by these names. `mark` tells it from another that got the same id after a failover.
local function notes_of(notes, id, mark)
  local names, out = {}, {}
  for i, name in ipairs(note_names) do names[i] = id .. ' ' .. name end
  local values = redis.call('HMGET', notes, unpack(names))
  if values[1] ~= mark then return out end
  for i, name in ipairs(note_names) do out[name] = values[i] or nil end
  return out
end

local function forget_notes(notes, id)
  local names = {}
  for i, name in ipairs(note_names) do names[i] = id .. ' ' .. name end
  redis.pcall('HDEL', notes, unpack(names))
end

-- The copy that a run has replayed died again: the run is told, once.
local function died_again(runs, out, copy)
  local run = redis.pcall('HGET', out, copy)
  if type(run) ~= 'string' then return end
  redis.pcall('HDEL', out, copy)
  redis.pcall('HINCRBY', runs, run .. ':died', 1)
end

local function uncount(groups, fingerprint)
  if type(redis.pcall('HGET', groups, fingerprint .. ':n')) ~= 'string' then fingerprint = 'other' end
  redis.pcall('HINCRBY', groups, 'count', -1)
  local left = redis.pcall('HINCRBY', groups, fingerprint .. ':n', -1)
  if type(left) == 'number' and left <= 0 then
    local names = {}
    for i, name in ipairs({ 'n', 'is', 'first', 'last', 'versions' }) do names[i] = fingerprint .. ':' .. name end
    redis.pcall('HDEL', groups, unpack(names))
    redis.pcall('HINCRBY', groups, 'kinds', -1)
  end
end

-- A letter has left the dead letters. `v` and `before`: what death_of answers of its fields.
local function left(id, fields, v, before, notes, groups, runs, out)
  forget_notes(notes, id)
  if v[#v] ~= '0' then died_again(runs, out, v[8]) end
  local counted = redis.pcall('HGET', groups, 'at')
  if type(counted) == 'string' and not above(id, counted) then
    local of, count = original_of(fields, v, before)
    uncount(groups, (fingerprint_of(v, first_named(of, count, 'type'))))
  end
end
