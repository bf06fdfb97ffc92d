-- Putting an event on the schedule and taking it off. What is there is asked by functions, for a commit has to see what
-- those before in the same step will have made of it: `score` of a member of a sorted set, `value` of a field of a hash.

-- Whether both say the same of this. What other hands have spoilt is not told apart.
local function alike(kept, fields, what) return not kept or says(kept, what) == says(fields, what) end

-- The name an event is on the schedule under, when it is due, and what is kept of it; of one that is not there the name it
-- is to have.
local function place_of(scheduled, events, id, which, fields, score, value)
  local function look_for(name)
    local due = score(scheduled, name)
    return due, due and value(events, name)
  end
  local name = name_of(which, id)
  local due, packed = look_for(name)
  if packed then return name, due, packed end
  if not stands_alone(id) then return name end
  due, packed = look_for(id)
  if not packed then return id end
  local kept = fields_of(packed)
  if alike(kept, fields, 'type') and alike(kept, fields, 'source') then return id, due, packed end
  return name
end

-- Whether what is kept of an event is this one, by the letter.
local function is_the_same(packed, fields)
  local kept = fields_of(packed)
  for _, what in ipairs({ 'data', 'datacontenttype', 'schemaversion' }) do
    if not alike(kept, fields, what) then return false end
  end
  return true
end

-- The list of those that have an id, with this one.
local function listed(others, which)
  for other in string.gmatch(others, WHICH) do
    if other == which then return nil end
  end
  return others .. which
end

-- Events of one due time come in the order in which they were scheduled. The first of them has its due time as its score;
-- each one behind it a little more, by less than half a millisecond in all, for a score is rounded where it is told. A
-- double has room for 2,048 of them today. The first 1,024 have a score each. Behind that ROOM of them share one, and
-- what is kept of those has a second string behind it, by which add_due puts them in order. Earlier releases pass over it.
-- Every score is a whole number of units: nothing is rounded on its way through Lua.
local SHARED, ROOM = 0.25, 512
local turns = 0
-- Answers the score, and what is to stand behind what is kept. Whoever may not look puts it on among those of its time.
local function turn_for(scheduled, due)
  if not redis.acl_check_cmd('ZREVRANGEBYSCORE', scheduled, '1', '1') or not redis.acl_check_cmd('ZCOUNT', scheduled, '1', '1') then
    return due, ''
  end
  local at, unit, top = tonumber(due), 1 / 4096, 2 ^ 41
  while at >= top do unit, top = unit * 2, top * 2 end
  local last = redis.call('ZREVRANGEBYSCORE', scheduled, string.format('(%.17g', at + 0.5), due, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if not last then return due, '' end
  local part = tonumber(last) - at
  local is_full = part < SHARED or redis.call('ZCOUNT', scheduled, last, last) >= ROOM
  if is_full and part + unit < 0.5 then part = part + unit end
  if part < SHARED then return string.format('%.17g', at + part), '' end
  turns = turns + 1
  local t = redis.call('TIME')
  return string.format('%.17g', at + part), cmsgpack.pack(string.format('%012d%06d%06d', t[1], t[2], turns))
end

-- Puts an event on. Answers the error if the first write is refused; none behind it is.
local function put_on(call, scheduled, events, id, which, name, due, packed)
  local score, behind = turn_for(scheduled, due)
  if name ~= id then
    local all = listed(redis.call('HGET', events, '\0i' .. id) or '', which)
    local done = all and call('HSET', events, '\0i' .. id, all)
    if type(done) == 'table' then return done.err end
  end
  local done = call('HSET', events, name, packed .. behind)
  if type(done) == 'table' then return done.err end
  redis.call('ZADD', scheduled, score, name)
end

-- The names of those on the schedule that are meant by an id, and by which one it is, its type and its source, if that is
-- said.
local function meant(scheduled, events, id, which, event_type, source, score, value)
  local found = {}
  local function look_for(name, its)
    if (which == '' or its == which) and score(scheduled, name) then found[#found + 1] = name end
  end
  if stands_alone(id) then
    -- What other hands have spoilt goes by its id.
    local kept = which ~= '' and fields_of(value(events, id) or nil)
    local is_it = not kept or says(kept, 'type') == event_type and says(kept, 'source') == source
    look_for(id, is_it and which or nil)
  end
  for its in string.gmatch(value(events, '\0i' .. id) or '', WHICH) do look_for(name_of(its, id), its) end
  return found
end
