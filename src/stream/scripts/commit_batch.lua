-- Commits a batch: in one step it adds the events that its handler emitted, does its effects, notes that its own events are
-- done, and acknowledges all of them, if all of them are still ours. If not, it does nothing, and says which are not.
-- Behind: common/packed, common/effects, common/rights, common/guards, common/sealed
-- KEYS: stream, retry, failures, commits, guards, then where marks are kept the mark of every entry's event, then the stream
--       of each event, the key of each effect
-- ARGV, packed: group, me, number of this request, delete (0|1), whether marks are kept (0|1), number of events, the entries,
--       then every event, every effect, both as commit has them. The entries are lines of: id, count, time (ms) until which
--       it is ours to commit though it is nobody's (0: it is not), recorded (0|1), how long its mark lasts in ms (0: none), a
--       hash of its event's data for that, whether another's mark counts (0|1), with a space between two
-- Answers {done}, {gone, then of every entry that is not ours {its place, why}, where why is taken, nobody, late or copy},
--       followed by the server's time (ms) where it is late, and by whether it has other data (0|1) where it is a copy of one
--       that has succeeded}, {refused, place of the effect, current value or false}, {failed, why}, {sealed} (the topic
--       that an event goes to has grown)
local stream, retry, failures, commits, guards = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, me, number, delete = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', failures)
redis.call('ZCARD', guards)
local no = lacks(commits, 'HSET', stream, 'XACK XDEL', failures, 'HDEL', retry, 'ZREM', guards, 'ZADD')
if no then return no end
-- The last request of this worker, and what it committed: see common/commit.
local record = redis.call('HGET', commits, me) or '0 '
if tonumber(string.match(record, '^%d+')) >= tonumber(number) then
  return redis.error_reply('STALE a later commit of this worker has been answered')
end

local has_marks, of_events = ARGV[5] == '1', tonumber(ARGV[6])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local done, acked, recorded, nobodys, gone, marks = { number }, {}, {}, {}, {}, {}
local at, k = 0, 5
for id, count, own_until, has_record, lasts, data, counts in
  string.gmatch(ARGV[7], '(%S+) (%d+) (%d+) ([01]) (%d+) (%x*) ([01])\n') do
  at = at + 1
  if has_marks then k = k + 1 end
  local p = redis.call('XPENDING', stream, group, id, id, 1)
  local this = id .. ':' .. count
  local why, more
  if #p == 0 then
    -- All of it was done by the request before, or nothing.
    if string.find(record, ' ' .. this .. ' ', 1, true) then return { 'done' } end
    if own_until == '0' or is_guarded(guards, id, now) then why = 'nobody'
    elseif now > tonumber(own_until) then why, more = 'late', string.format('%.0f', now) end
    nobodys[#nobodys + 1] = id
  elseif p[1][2] ~= me or p[1][4] ~= tonumber(count) then
    why = 'taken'
  end
  if not why and lasts ~= '0' then
    local mark = KEYS[k]
    if kind(mark) ~= 'none' and kind(mark) ~= 'string' then
      return { 'failed', mark .. ': the key holds a ' .. kind(mark) }
    end
    local other, its = string.match(counts == '1' and redis.call('GET', mark) or '', '^done (%S+) ?(%x*)$')
    if other and other ~= id then why, more = 'copy', its ~= '' and its ~= data and 1 or 0 end
    marks[#marks + 1] = { key = mark, value = 'done ' .. id .. ' ' .. data, lasts = lasts }
  end
  if why then gone[#gone + 1] = { at, why, more } end
  acked[at], done[at + 1] = id, this
  if has_record == '1' then recorded[#recorded + 1] = id end
end
if #gone > 0 then return { 'gone', unpack(gone) } end

local events, effects, a = {}, {}, 8
for i = 1, of_events do
  local key = KEYS[k + i]
  if kind(key) ~= 'none' and kind(key) ~= 'stream' then
    return { 'failed', 'emitting to ' .. key .. ': the key holds a ' .. kind(key) }
  end
  if not may_on('XADD', key) then
    return { 'failed', 'emitting to ' .. key .. ': the ACL of this user lacks XADD of it' }
  end
  if is_sealed(key) then return { 'sealed' } end
  kinds[key] = 'stream'
  events[i] = { key = key, from = a + 1, to = a + ARGV[a] }
  a = a + ARGV[a] + 1
end
while a <= #ARGV do
  local place, from = #effects + 1, ARGV[a + 1] == '' and a + 3 or a + 7
  local key, to = KEYS[k + of_events + place], from - 1 + ARGV[from - 1]
  local stands_in_the_way
  if from == a + 3 then
    stands_in_the_way = look_at_effect(place, ARGV[a], key, ARGV, from, to, '', '', '', '')
  else
    stands_in_the_way = look_at_effect(place, ARGV[a], key, ARGV, from, to, ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], ARGV[a + 5])
  end
  if stands_in_the_way then return stands_in_the_way end
  effects[place] = { command = ARGV[a], key = key, from = from, to = to }
  a = to + 1
end

-- Of all writes only the very first can be refused, for want of memory: then nothing was done.
local begun
local function does(...)
  local err = write(...)
  if err then return { 'failed', begun and 'PARTLY DONE: ' .. err or err } end
  begun = true
end
for _, e in ipairs(events) do
  no = does('XADD', e.key, '*', unpack(ARGV, e.from, e.to))
  if no then return no end
end
for _, e in ipairs(effects) do
  no = does(e.command, e.key, unpack(ARGV, e.from, e.to))
  if no then return no end
end
for _, mark in ipairs(marks) do
  no = does('SET', mark.key, mark.value, 'PX', mark.lasts)
  if no then return no end
end
done[#done + 1] = ''
redis.call('HSET', commits, me, table.concat(done, ' '))
redis.call('XACK', stream, group, unpack(acked))
if delete then redis.call('XDEL', stream, unpack(acked)) end
if #recorded > 0 then
  redis.call('HDEL', failures, unpack(recorded))
  redis.call('ZREM', retry, unpack(recorded))
end
-- What is repeated of another step must find that what it speaks of has succeeded: see ack.lua.
guard(guards, recorded, now, me)
guard(guards, nobodys, now, me, true)
return { 'done' }
