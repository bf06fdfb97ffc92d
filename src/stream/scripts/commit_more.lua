-- As commit, if any of what succeeded schedules events, cancels some, or appends some to aggregates. Few do: so commit
-- itself has nothing of it.
-- Behind: common/packed, common/pending, common/effects, common/rights, common/guards, common/sealed, common/scheduled, common/on_schedule, common/ids, common/reached, common/appending, common/commit
-- KEYS and ARGV: as commit. Among the effects, behind the handler's own, are lines:
--       SCHEDULE of the keys stream, scheduled, events: presence ('stands' if it is known to be scheduled, as itself),
--       value (the event's id), at least (which event it is), at most (due time in ms, or ''), how long it has from now
--       in ms where there is none, its fields
--       CANCEL of the keys stream, scheduled, events: value (the event's id), at least (which one it is, or ''), its type,
--       its source
--       APPEND of the keys aggregate, public stream, the highest position that ever gave: presence ('stands' if these are
--       known to be stored, as themselves), value (the version it is expected at, or exists|any), at least (number of
--       events), of every event: number of strings, strings
-- Answers, for each, as commit, and: {conflict, place of the line, version of the aggregate}, {overlap, the same},
--       {stands, place of the line, version of the first stored event, what is there} (the packed fields of an event that is scheduled, or the fields of
--       those that are stored: by the letter they are others)

-- What stands in the way of a line: a key that holds something else, or a right that this user has not got.
local function in_the_way(doing, key, holding, commands)
  if holding and kind(key) ~= 'none' and kind(key) ~= holding then
    return { 'failed', doing .. ': ' .. key .. ' holds a ' .. kind(key) .. ' and should be a ' .. holding }
  end
  if wiped[key] then return { 'failed', doing .. ': an effect of the same commit deletes ' .. key } end
  for command in string.gmatch(commands, '%S+') do
    if not may_on(command, key) then
      return { 'failed', doing .. ': the ACL of this user lacks ' .. command .. ' of ' .. key }
    end
  end
end

local function shown(id) return '"' .. string.sub(id, 1, 100) .. '"' end

local schedule = {}
function schedule.look(e, place)
  local stream, scheduled, events = e.key, KEYS[e.at + 1], KEYS[e.at + 2]
  local doing = 'emitting to ' .. stream .. ' later'
  local no = in_the_way(doing, stream, 'stream', '') or in_the_way(doing, scheduled, 'zset', 'ZADD ZSCORE')
    or in_the_way(doing, events, 'hash', 'HSET HGET')
  if no then return no end
  local id, which, fields = e.value, e.least, {}
  for a = e.from + 1, e.to do fields[#fields + 1] = ARGV[a] end
  local name, due, packed = place_of(scheduled, events, id, which, fields, current, current)
  if packed then
    due = string.format('%.0f', due)
    if e.most ~= '' and e.most ~= due then
      return { 'failed', doing .. ': an event with the id ' .. shown(id) .. ' is scheduled for another time already: cancel that one first' }
    end
    if e.presence ~= 'stands' and not is_the_same(packed, fields) then return { 'stands', place, 0, packed } end
    e.is_idle = true
    return
  end
  if is_sealed(stream) then return { 'sealed' } end
  due = e.most
  if due == '' then
    local t = redis.call('TIME')
    due = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[e.from])
  end
  e.name, e.due, e.packed = name, due, cmsgpack.pack(fields)
  kinds[scheduled], kinds[events] = 'zset', 'hash'
  cells_of(scheduled)[name], cells_of(events)[name] = due, e.packed
  if name ~= id then
    local list = '\0i' .. id
    local all = listed(current(events, list) or '', which)
    if all then cells_of(events)[list] = all end
  end
end
function schedule.write(e)
  if e.is_idle then return end
  return put_on(redis.pcall, KEYS[e.at + 1], KEYS[e.at + 2], e.value, e.least, e.name, e.due, e.packed)
end

local cancel = {}
function cancel.look(e)
  local stream, scheduled, events = e.key, KEYS[e.at + 1], KEYS[e.at + 2]
  local doing = 'cancelling an event for ' .. stream
  local no = in_the_way(doing, scheduled, 'zset', 'ZREM ZSCORE') or in_the_way(doing, events, 'hash', 'HDEL HGET HSET')
  if no then return no end
  local id, which = e.value, e.least
  local found = meant(scheduled, events, id, which, ARGV[e.from], ARGV[e.from + 1], current, current)
  if #found > 1 then
    return { 'failed', doing .. ': ' .. #found .. ' events with the id ' .. shown(id) .. ' wait for their time: say which by its type and source' }
  end
  e.name, e.is_idle = found[1], #found == 0
  if e.name then cells_of(scheduled)[e.name], cells_of(events)[e.name] = false, false end
end
function cancel.write(e)
  if e.is_idle then return end
  local scheduled = KEYS[e.at + 1]
  local err = write('ZREM', scheduled, e.name)
  if err then return err end
  take_off(scheduled, KEYS[e.at + 2], e.name)
  kinds[scheduled], kinds[KEYS[e.at + 2]] = nil, nil
end

-- What is known of public streams that were appended to in this step.
local publics = {}
local append = {}
function append.look(e, place)
  local key, public, reached = e.key, KEYS[e.at + 1], KEYS[e.at + 2]
  local doing = 'appending to ' .. key
  local no = in_the_way(doing, public, 'stream', 'XADD XDEL XSETID') or in_the_way(doing, reached, nil, 'SET')
    or in_the_way(doing, key, 'stream', 'XADD XINFO|STREAM XRANGE XREVRANGE')
  if no then return no end
  local one
  no, one = look_at(place, key, e.value, tonumber(e.least), e.from)
  if no and no.err then return { 'failed', doing .. ': ' .. no.err } end
  if no and no[1] == 'strange' then
    return { 'failed', doing .. ': the key does not begin with the first event of an aggregate: it has lost some, or is none' }
  end
  if no then return no end
  e.one, e.is_idle = one, #one.positions == one.count
  if e.is_idle and e.presence ~= 'stands' then
    for i, its in ipairs(one.events) do
      for _, what in ipairs({ 'type', 'source', 'data', 'datacontenttype', 'schemaversion' }) do
        if (field(one.stored[i], what) or '') ~= (field(ARGV, what, its.from, its.to) or '') then
          return { 'stands', place, one.after + 1, one.stored }
        end
      end
    end
  end
  kinds[key], kinds[public] = 'stream', 'stream'
end
function append.write(e)
  if e.is_idle then return end
  local name = KEYS[e.at + 1]
  local public = publics[name] or { key = name, reached = KEYS[e.at + 2], first = e.at, last = e.at }
  publics[name] = public
  local refused = store(public, e.one)
  if refused then return refused.err end
  reached_now(public)
end

return commit({ SCHEDULE = schedule, CANCEL = cancel, APPEND = append })
