-- Commits entries, for the scripts that do. `lines` has, by their names, what a commit can do beside effects, each with how
-- it is looked at (as an effect is: see common/effects) and how it is written, which answers the error if the first write
-- is refused. It stands among the effects, and has three keys.
--
-- Most lots are alike: entries of one consumer at their first delivery, without a record. What they need is asked of all of
-- them at once, and there is no table, closure or text for each.
local function commit(lines)
  local stream, retry, failures, commits, guards = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
  local group, me, delete, usual, is_plain = ARGV[1], ARGV[2], ARGV[4] == '1', ARGV[5], ARGV[6] == ''
  -- Of plain ones no more is written than what they bring along. Which right is missing is told by `lacks`.
  local check = redis.acl_check_cmd
  local may = is_plain and check('HSET', commits, '1', '1', '1') and check('XACK', stream, '1', '1', '1')
    and (not delete or check('XDEL', stream, '1', '1', '1'))
  if not is_plain then
    redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
    redis.call('HLEN', failures)
    redis.call('ZCARD', guards)
  end
  local no = not may and lacks(commits, 'HSET', stream, 'XACK XDEL', failures, 'HDEL', retry, 'ZREM', guards, 'ZADD')
  if no then return no end
  -- The last request of this worker, and what it committed: '<number> <id>:<count> … '. A repeat of it finds there what
  -- was done; an earlier one that comes late does nothing.
  local record = redis.call('HGET', commits, me) or '0 '
  if tonumber(string.match(record, '^%d+')) >= tonumber(ARGV[3]) then
    return redis.error_reply('STALE a later commit of this worker has been answered')
  end
  local pending, now = {}, nil
  if ARGV[7] ~= ARGV[8] then
    pending = pending_between(stream, group, ARGV[7], ARGV[8], ARGV[9], usual)
    look_at_keys(6)
  end
  if not is_plain then
    local t = redis.call('TIME')
    now = t[1] * 1000 + math.floor(t[2] / 1000)
  end

  local out, done, n_done, acked, n_acked, recorded, nobodys = {}, { ARGV[3], ' ' }, 2, {}, 0, {}, {}
  local a, k, number = 10, 6, 0
  -- Of the entry at hand: where its events and effects stand among ARGV, and its lines. Which entry met a key last.
  local events, effects, met = {}, {}, {}

  local function note(id, count)
    done[n_done + 1], done[n_done + 2], done[n_done + 3], done[n_done + 4] = id, ':', count, ' '
    n_done = n_done + 4
  end
  local function acknowledge(id, has_record, is_nobodys)
    n_acked = n_acked + 1
    acked[n_acked] = id
    if has_record then recorded[#recorded + 1] = id end
    if is_nobodys then nobodys[#nobodys + 1] = id end
  end

  -- What stands in the way of events to the streams from this key to that one.
  local may_add = {}
  local function look_at_events(from, to)
    for place = from, to do
      local key = KEYS[place]
      local is = kind(key)
      if is ~= 'stream' and is ~= 'none' then
        return { 'failed', 'emitting to ' .. key .. ': the key holds a ' .. is }
      end
      if may_add[key] == nil then may_add[key] = may_on('XADD', key) end
      if not may_add[key] then
        return { 'failed', 'emitting to ' .. key .. ': the ACL of this user lacks XADD of it' }
      end
      if is_sealed(key) then return { 'sealed' } end
      kinds[key] = 'stream'
    end
  end
  local function look_at_effects(count, key)
    for i = 1, count do
      local e, no = effects[i], nil
      if type(e) == 'table' then
        no, key = e.line.look(e, i), key + 3
      elseif ARGV[e + 1] == '' then
        no = look_at_effect(i, ARGV[e], KEYS[key], ARGV, e + 3, e + 2 + ARGV[e + 2], '', '', '', '')
        key = key + 1
      else
        no = look_at_effect(i, ARGV[e], KEYS[key], ARGV, e + 7, e + 6 + ARGV[e + 6], ARGV[e + 2], ARGV[e + 3],
          ARGV[e + 4], ARGV[e + 5])
        key = key + 1
      end
      if no then return no end
    end
  end
  -- Does it all. Answers the error that stopped it, and whether something was done before.
  local function apply(of_events, of_effects, key)
    local begun
    for i = 1, of_events do
      local at = events[i]
      local answer = try('XADD', KEYS[key], '*', unpack(ARGV, at + 1, at + ARGV[at]))
      if type(answer) == 'table' then return answer.err, begun end
      begun, key = true, key + 1
    end
    for i = 1, of_effects do
      local e = effects[i]
      if type(e) == 'table' then
        local err = e.line.write(e)
        if err then return err, begun end
        begun, key = begun or not e.is_idle, key + 3
      else
        local from = ARGV[e + 1] == '' and e + 3 or e + 7
        local answer = try(ARGV[e], KEYS[key], unpack(ARGV, from, from - 1 + ARGV[from - 1]))
        if type(answer) == 'table' and answer.err then return answer.err, begun end
        written(ARGV[e], KEYS[key])
        begun, key = true, key + 1
      end
    end
    return nil, begun
  end

  local function one()
    local id, count, more = ARGV[a], ARGV[a + 1], ARGV[a + 2]
    local of_events, of_effects = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
    local consumer, own_until, has_record, counts, mark, lasts, data = usual, '0', false, false, nil, nil, nil
    a, number = a + 5, number + 1
    if more ~= '' then
      has_record, counts = string.find(more, 'r', 1, true), string.find(more, 'k', 1, true)
      if string.find(more, 'c', 1, true) then consumer, a = ARGV[a], a + 1 end
      if string.find(more, 'o', 1, true) then own_until, a = ARGV[a], a + 1 end
      if string.find(more, 'm', 1, true) then mark, lasts, data, a, k = KEYS[k], ARGV[a], ARGV[a + 1], a + 2, k + 1 end
    end
    local keys, is_twice = k, false
    for i = 1, of_events do
      events[i] = a
      a = a + ARGV[a] + 1
    end
    k = k + of_events
    for i = 1, of_effects do
      local from = ARGV[a + 1] == '' and a + 3 or a + 7
      local n, key, line = ARGV[from - 1], KEYS[k], lines[ARGV[a]]
      if line then
        effects[i] = { command = ARGV[a], key = key, presence = ARGV[a + 2], value = ARGV[a + 3], least = ARGV[a + 4],
          most = ARGV[a + 5], line = line, at = k, from = from, to = from + n - 1 }
        k, is_twice = k + 2, true
      else
        effects[i] = a
        if met[key] == number then is_twice = true end
        met[key] = number
      end
      a, k = from + n, k + 1
    end

    local is_nobodys = false
    if consumer ~= usual or pending[id] ~= tonumber(count) then
      local p = redis.call('XPENDING', stream, group, id, id, 1)
      is_nobodys = #p == 0
      if not is_nobodys and (p[1][2] ~= consumer or p[1][4] ~= tonumber(count)) then return { 'taken' } end
    end
    if is_nobodys then
      if string.find(record, ' ' .. id .. ':' .. count .. ' ', 1, true) then
        note(id, count)
        return 1
      end
      if own_until == '0' then return { 'nobody' } end
      -- There is no delivery count any more to fence a repeat: a guard does.
      if is_guarded(guards, id, now) then return 1 end
      if now > tonumber(own_until) then return { 'late', string.format('%.0f', now) } end
    end

    next_event(is_twice)
    if mark then
      if kind(mark) ~= 'none' and kind(mark) ~= 'string' then
        return { 'failed', mark .. ': the key holds a ' .. kind(mark) }
      end
      local other, its = string.match(counts and redis.call('GET', mark) or '', '^done (%S+) ?(%x*)$')
      if other and other ~= id then
        acknowledge(id, has_record, is_nobodys)
        return { 'duplicate', its ~= '' and its ~= data and 1 or 0 }
      end
    end
    -- A single write is not looked at: if it is refused, nothing was done, and then it is found out why.
    local is_single = of_events == 1 and of_effects == 0 and not mark
    local no = not is_single
      and (look_at_events(keys, keys + of_events - 1) or look_at_effects(of_effects, keys + of_events))
    local err, begun
    if not no then
      err, begun = apply(of_events, of_effects, keys)
      if err and is_single then no = look_at_events(keys, keys) end
    end
    if mark and not no and not err then
      err = write('SET', mark, 'done ' .. id .. ' ' .. data, 'PX', lasts)
      kinds[mark] = 'string'
    end
    if no or err then
      not_done()
      return no or { 'failed', begun and 'PARTLY DONE: ' .. err or err }
    end
    note(id, count)
    acknowledge(id, has_record, is_nobodys)
    return 1
  end
  local last = #ARGV
  while a <= last do
    local outcome = one()
    out[number] = outcome
  end

  -- Where nothing was written yet this may be refused for want of memory: then all of it is sent again.
  redis.call('HSET', commits, me, table.concat(done))
  if n_acked > 0 then
    redis.call('XACK', stream, group, unpack(acked))
    if delete then redis.call('XDEL', stream, unpack(acked)) end
  end
  if not is_plain then
    if #recorded > 0 then
      redis.call('HDEL', failures, unpack(recorded))
      redis.call('ZREM', retry, unpack(recorded))
    end
    -- What is repeated of another step must find that what it speaks of has succeeded: see ack.lua.
    guard(guards, recorded, now, me)
    guard(guards, nobodys, now, me, true)
  end
  return out
end
