-- Moves entries, whole, to the dead letters.
-- Behind: common/packed, common/pending, common/letter, common/errors, common/rights, common/guards
-- KEYS: stream, retry, dead, failures, guards, notes of dead letters, which letters hold their subjects (the stream if none
--       do), then the mark of each event that has one
-- ARGV, packed: group, delete (0|1), name of the stream, the consumer that most entries are with, the first and the last id,
--       then of every entry: consumer, id, count, time (ms) until which it is the
--       consumer's to bury should it be nobody's (0: it is not), ms since its delivery, reason, error, attempts, handler,
--       replays, crash checks, letters (m: its event has a mark, h: it holds its subject), number of strings, and (once
--       asked for) its fields
-- Answers, for each: ok, taken, nobody, missing (no longer in the stream: send the fields along), late <now> (it is
--       nobody's, and that time is over: nothing was done), refused (alone it is told why)
local stream, retry, dead, failures, guards, notes, held = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local group, delete, name, usual = ARGV[1], ARGV[2] == '1', ARGV[3], ARGV[4]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local at = rfc3339(now)
redis.call('ZCARD', guards) -- WRONGTYPE surfaces before the first write
redis.call('ZCARD', retry)
redis.call('XLEN', dead)
if held ~= stream then redis.call('HLEN', held) end
local checked, checked_held

local function value_of(fields, what)
  for f = 1, #fields, 2 do
    if fields[f] == what then return fields[f + 1] end
  end
end

local pending, entries, records, ids, number = {}, {}, nil, {}, 0
local last, at_entry = #ARGV, 7
while at_entry <= last do
  number = number + 1
  ids[number] = ARGV[at_entry + 1]
  at_entry = at_entry + 13 + ARGV[at_entry + 12]
end
if number > 1 then
  pending = pending_between(stream, group, ARGV[5], ARGV[6], 2 * number, usual)
  for _, entry in ipairs(redis.call('XRANGE', stream, ARGV[5], ARGV[6], 'COUNT', number)) do
    entries[entry[1]] = entry[2]
  end
end
records = redis.call('HMGET', failures, unpack(ids))

local out, done, nobodys, a, k, begun = {}, {}, {}, 7, 7, false
-- Answers what became of it; an error where nothing was written yet, as a table.
local function one(number, me, id, count, own_until, age, reason, error, attempts, handler, replays, checks, more, strings)
  local mark = string.find(more, 'm', 1, true) and KEYS[k]
  local is_nobodys = false
  if me ~= usual or pending[id] ~= tonumber(count) then
    local p = redis.call('XPENDING', stream, group, id, id, 1)
    is_nobodys = #p == 0
    if is_nobodys and own_until == '0' then return 'nobody' end
    if not is_nobodys and (p[1][2] ~= me or p[1][4] ~= tonumber(count)) then return 'taken' end
    -- Nobody's, and its holder buries it: there is no delivery count any more to fence a repeat, or a step that came
    -- before the entry's success elsewhere. Every burial, and every success after a failure, leaves a guard.
    if is_nobodys and is_guarded(guards, id, now) then return 'ok' end
    -- It stayed on its way until others may have had the entry, and the guard of what they did is gone.
    if is_nobodys and now > tonumber(own_until) then return 'late ' .. string.format('%.0f', now) end
  end

  local fields = entries[id]
  if not fields then
    local entry = redis.call('XRANGE', stream, id, id)[1]
    fields = entry and entry[2]
  end
  if fields then
    -- As they stand in the stream.
  elseif strings > 0 then
    fields = { unpack(ARGV, a - strings, a - 1) }
  else
    return 'missing'
  end
  -- Of one that was not read its own fields tell what it is.
  if handler == '' then handler = value_of(fields, 'type') or '' end
  local subject = string.find(more, 'h', 1, true) and value_of(fields, 'subject')
  if subject == '' then subject = nil end
  if not checked then
    local no = lacks(dead, 'XADD', guards, 'ZADD', stream, 'XACK XDEL', failures, 'HDEL', retry, 'ZREM')
    if no then return no end
    checked = true
  end
  if subject and not checked_held then
    local no = lacks(held, 'HSET')
    if no then return begun and 'refused' or no end
    checked_held = true
  end
  local record = records[number]
  local first = record and tonumber(string.match(record, '^(%d+) ')) or now - age

  local letter_id = redis.pcall('XADD', dead, '*', unpack(letter(fields, { reason = reason, error = error,
    attempts = attempts, handler = handler, stream = name, group = group, entry = id, consumer = me, first = rfc3339(first),
    at = at, replays = replays, checks = checks })))
  if type(letter_id) == 'table' then return begun and 'refused' or letter_id end
  begun = true
  -- See order_held.lua.
  if subject then redis.call('HSET', held, letter_id, (delete and '0 ' or '1 ') .. id .. ' ' .. subject) end
  -- The errors before the last one stand beside the letter. Nothing depends on them.
  local doomed, tail = string.match(record or '', '^%d+ %d+ %d+ %S (%S+) (.*)$')
  if tail and tail ~= '' then
    local errors = errors_of(tail)
    if doomed == '-' or doomed == '?' then errors = with_error(errors, error, attempts, now) end
    if #errors > 1 or errors[1].times ~= '1' then
      redis.pcall('HSET', notes, letter_id .. ' of', id .. ' ' .. at, letter_id .. ' errors',
        table.concat(error_parts(errors, 1), SEPARATOR))
    end
  end
  done[#done + 1] = id
  if is_nobodys then nobodys[#nobodys + 1] = id end
  -- Copies of its event need not wait for it any more.
  if mark then
    local claimed = redis.pcall('GET', mark)
    if type(claimed) == 'string' and string.match(claimed, '^runs (%S+)') == id then redis.pcall('DEL', mark) end
  end
  return 'ok'
end

number = 0
while a <= last do
  local from, strings = a, tonumber(ARGV[a + 12])
  a, number = a + 13 + strings, number + 1
  if string.find(ARGV[from + 11], 'm', 1, true) then k = k + 1 end
  local outcome = one(number, ARGV[from], ARGV[from + 1], ARGV[from + 2], ARGV[from + 3], ARGV[from + 4], ARGV[from + 5],
    ARGV[from + 6], ARGV[from + 7], ARGV[from + 8], ARGV[from + 9], ARGV[from + 10], ARGV[from + 11], strings)
  if type(outcome) == 'table' then return outcome end
  out[number] = outcome
end
if #done > 0 then
  local me = usual
  guard(guards, done, now, me)
  guard(guards, nobodys, now, me, true)
  redis.call('XACK', stream, group, unpack(done))
  if delete then redis.call('XDEL', stream, unpack(done)) end
  redis.call('HDEL', failures, unpack(done))
  redis.call('ZREM', retry, unpack(done))
end
return out
