-- Applies a batch of events to a view and notes how far it is, in one step: event by event, each wholly or not at all.
-- Behind: common/effects, common/letter, common/ids, common/reached, common/projection
-- KEYS: public stream, checkpoint, dead letters, replayed events, the highest position the public stream ever gave, then
--       the key of each effect
-- ARGV: projection, me, lease in ms, generation, position before it, from: public (what comes behind that position
--       there)|aggregates|again (replayed), is the public stream told (0|1), position behind it, number of entries, then
--       of every event that is not passed over: its id, entries of the batch up to it, do|bury; to do: number of effects,
--       of each command, number of arguments, arguments; to bury: reason, error, attempts, stream, replays, ms since it
--       was first met, number of strings, strings
-- Answers: {done, position, entries read or -1}
--          {refused, number of the event, why, position, entries read}: it can't be done; those before it are
--          {moved}: another runs it by now, or it stands elsewhere: nothing was done
--          {gap, the public stream's last id, entries ever added to it}: some were deleted before they were read there:
--          nothing was done
local stream, checkpoint, dead, again, reached = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local name, me, lease, from, told = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[6], ARGV[7] == '1'
local now = clock()
local is = map(redis.call('HGETALL', checkpoint)) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', dead)
redis.call('XLEN', again)
if is.runner ~= me or is.generation ~= ARGV[4] or (from ~= 'again' and is.position ~= ARGV[5]) then
  return { 'moved' }
end
local read, bad, position, entries = tonumber(is.read), tonumber(is.bad), is.position, 0
local public = public_of(stream, reached, position, read, told and name or nil)
if not public then return redis.error_reply('WRONGTYPE ' .. stream .. ' holds something else than events') end
if public.unsure then
  halt_unsure(checkpoint, public, position)
  return { 'moved' }
end
if public.is_new then read = -1 end
if from == 'public' and public.gap then return { 'gap', public.last, text(public.added) } end

local a, k, begun = 10, 6, false
-- One event. Answers why it can't be done; an error of the server, where nothing was written at all, as a table.
local function one(id)
  local effects, death = {}, nil
  if ARGV[a + 2] == 'do' then
    local count = tonumber(ARGV[a + 3])
    a = a + 4
    for i = 1, count do
      local n, args = tonumber(ARGV[a + 1]), {}
      for j = 1, n do args[j] = ARGV[a + 1 + j] end
      effects[i] = { command = ARGV[a], key = KEYS[k], presence = '', least = '', most = '', args = args }
      a, k = a + 2 + n, k + 1
    end
  else
    local fields, n = {}, tonumber(ARGV[a + 9])
    for j = 1, n do fields[j] = ARGV[a + 9 + j] end
    death = letter(fields, { reason = ARGV[a + 3], error = ARGV[a + 4], attempts = ARGV[a + 5], handler = name,
      stream = ARGV[a + 6], group = name, entry = id, consumer = me, first = rfc3339(now - ARGV[a + 8]), at = rfc3339(now),
      replays = ARGV[a + 7] })
    a = a + 10 + n
  end
  -- A repeat finds that it is done.
  if from == 'again' and #redis.call('XRANGE', again, id, id) == 0 then return end
  kinds, cells, wiped = {}, {}, {}
  for i = 1, #effects do
    local no = look(effects[i], i)
    if no then return no[2] end
  end
  for _, e in ipairs(effects) do
    local err = write(e.command, e.key, unpack(e.args))
    if err then return begun and 'PARTLY DONE: ' .. err or { err = err } end
    begun = true
  end
  if death then
    local err = write('XADD', dead, '*', unpack(death))
    if err then return begun and err or { err = err } end
    begun, bad = true, bad + 1
  end
  if from == 'again' then
    redis.call('XDEL', again, id)
    begun = true
  end
end

local number, refused = 0, nil
while a <= #ARGV do
  number = number + 1
  local id, upto = ARGV[a], tonumber(ARGV[a + 1])
  local why = one(id)
  if type(why) == 'table' then return why end
  if why then
    refused = why
    break
  end
  position, entries = id, upto
end
if not refused then position, entries = ARGV[8], tonumber(ARGV[9]) end

-- What was noted before it was applied has killed nobody.
if is.noted then redis.call('HDEL', checkpoint, 'noted', 'suspect', 'suspect.deaths') end
if from == 'again' then
  redis.call('HSET', checkpoint, 'bad', text(bad), 'until', text(now + lease))
  position = is.position
else
  if from == 'aggregates' then read = -1
  elseif position == public.last then read = public.added
  elseif read >= 0 then read = read + entries end
  redis.call('HSET', checkpoint, 'position', position, 'read', text(read), 'passed', text(is.passed + entries),
    'bad', text(bad), 'until', text(now + lease))
  if position ~= is.position then passed(reached, position) end
  if told and position ~= is.position then stand(stream, name, position, text(read)) end
end
if refused then return { 'refused', number, refused, position, text(read) } end
return { 'done', position, text(read) }
