-- Adds to their stream the scheduled events whose time has come: event by event, so that what is done stays done
-- whatever becomes of the next.
-- The event of a cron's next occurrence is added if it is not late, paused or in the way of the one before; its record
-- says what was done, and whoever declares the cron goes on from there.
-- Behind: common/scheduled, common/rights, common/ids, common/reading, common/cron
-- KEYS: stream, scheduled, events, cron
-- ARGV: most events, most bytes, from when on a cron's event is late, and undeclared (ms)
-- Answers: how many were added, ids that have no event any more, next due time (ms) or false, now (ms)
local stream, scheduled, events = KEYS[1], KEYS[2], KEYS[3]
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('XLEN', stream) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', events)
local no = lacks(stream, 'XADD', scheduled, 'ZREM ZRANGE ZADD', events, 'HGET HDEL', KEYS[4], 'HGET HSET')
-- The fields of a packed event. What is no event is added as it is: a worker buries it with the reason.
local function unpacked(packed)
  local whole = { 'streamhand.packed', packed }
  local ok, fields = pcall(cmsgpack.unpack, packed)
  -- Lua's unpack ends at some 8,000 values.
  if not ok or type(fields) ~= 'table' or #fields < 2 or #fields % 2 == 1 or #fields > 7000 then return whole end
  for _, s in ipairs(fields) do
    if type(s) ~= 'string' then return whole end
  end
  return fields
end

-- Those that share a score because so many have the same due time come by what stands behind them: see on_schedule.
local function in_turn(names)
  local turns = {}
  for _, name in ipairs(names) do
    local kept = { pcall(cmsgpack.unpack, redis.call('HGET', events, name) or '') }
    turns[name] = kept[1] and type(kept[3]) == 'string' and kept[3] or ''
  end
  table.sort(names, function(a, b)
    if turns[a] ~= turns[b] then return turns[a] < turns[b] end
    return a < b
  end)
  return names
end
local function due_now()
  local found = redis.call('ZRANGEBYSCORE', scheduled, '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
  local names = {}
  for i = 1, #found, 2 do
    local score = found[i + 1]
    if tonumber(score) % 1 >= 0.25 then
      for _, name in ipairs(in_turn(redis.call('ZRANGEBYSCORE', scheduled, score, score, 'LIMIT', 0, 1000))) do
        names[#names + 1] = name
      end
      break
    end
    names[#names + 1] = found[i]
  end
  return names
end

-- What is to be done with a cron's next occurrence: 'add', 'skip', 'off' or 'wait'; and why, where it is not added.
local function turn(record)
  if is_paused(record, now) then return 'skip', 'paused' end
  if now - record.declared > tonumber(ARGV[4]) then return 'off', 'suspended' end
  if record.state == '' and record.free ~= '1' and now - record.due > tonumber(ARGV[3]) then return 'off', 'late' end
  if record.overlap ~= 'skip' and record.overlap ~= 'queue' or not is_out(stream, record) then return 'add' end
  if record.overlap == 'skip' then return 'skip', 'overlap' end
  return 'wait'
end

-- The cron whose next occurrence this is, and its record.
local function next_of(name)
  local cron, occurrence = cron_of(name)
  local record = cron and record_of(KEYS[4], cron)
  if not record or record.next ~= occurrence or not tonumber(record.due) or not tonumber(record.declared) then return end
  return cron, record
end

-- Does what is to be done with one. Answers whether its event was added.
local function take_turn(cron, record, name, packed)
  local what, why = turn(record)
  if what == 'wait' then
    record.state = 'wait'
    redis.call('ZADD', scheduled, string.format('%.0f', now + 1000), name)
  else
    local entry = '-'
    if what == 'add' then
      local fields = unpacked(packed)
      fields[#fields + 1], fields[#fields + 2] = 'cronlate', string.format('%.0f', math.max(0, now - record.due))
      entry = redis.call('XADD', stream, '*', unpack(fields))
      record.last, record.entry, record.added = record.next, entry, now
    end
    record.state = what == 'off' and why or 'done'
    if why ~= 'late' then
      note_cron(KEYS[4], cron, now .. ' ' .. (why or 'added') .. ' ' .. record.due .. ' ' .. entry .. ' ' .. (record.names or record.next))
    end
    take_off(scheduled, events, name)
  end
  redis.call('HSET', KEYS[4], cron, cjson.encode(record))
  return what == 'add' and 1 or 0
end

local added, gone, bytes = 0, {}, 0
for _, name in ipairs(due_now()) do
  if bytes > tonumber(ARGV[2]) or added >= tonumber(ARGV[1]) then break end
  local packed = redis.call('HGET', events, name)
  if packed then
    bytes = bytes + #packed
    local cron, record = next_of(name)
    if cron then
      added = added + take_turn(cron, record, name, packed)
    else
      redis.call('XADD', stream, '*', unpack(unpacked(packed)))
      added = added + 1
      take_off(scheduled, events, name)
    end
  else
    gone[#gone + 1] = id_of(name)
    take_off(scheduled, events, name)
  end
end
return { added, gone, redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')[2] or false, now }
