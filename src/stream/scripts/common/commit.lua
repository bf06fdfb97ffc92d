-- Commits entries, for the scripts that do. `lines` has, by their names, what a commit can do beside effects, each with how
-- it is looked at (as an effect is: see common/effects) and how it is written, which answers the error if the first write
-- is refused. It stands among the effects, and has three keys.
local function commit(lines)
  local stream, retry, failures, commits, guards = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
  local group, me, delete = ARGV[1], ARGV[2], ARGV[4] == '1'
  redis.call('ZCARD', retry) -- WRONGTYPE surfaces before the first write
  redis.call('HLEN', failures)
  redis.call('ZCARD', guards)
  local no = lacks(commits, 'HSET', stream, 'XACK XDEL', failures, 'HDEL', retry, 'ZREM', guards, 'ZADD')
  if no then return no end
  -- The last request of this worker, and what it committed: '<number> <id>:<count> … '. A repeat of it finds there what
  -- was done; an earlier one that comes late does nothing.
  local record = redis.call('HGET', commits, me) or '0 '
  if tonumber(string.match(record, '^%d+')) >= tonumber(ARGV[3]) then
    return redis.error_reply('STALE a later commit of this worker has been answered')
  end

  -- Does it all. Answers the error that stopped it, and whether something was done before.
  local function apply(events, effects)
    local err, begun
    for _, e in ipairs(events) do
      err = write('XADD', e.key, '*', unpack(ARGV, e.from, e.to))
      if err then return err, begun end
      begun = true
    end
    for _, e in ipairs(effects) do
      if e.line then err = e.line.write(e) else err = write(e.command, e.key, unpack(e.args)) end
      if err then return err, begun end
      begun = begun or not e.is_idle
    end
  end

  local out, done, acked, recorded, nobodys = {}, { ARGV[3] }, {}, {}, {}
  local a, k = 5, 6
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  local function one()
    local id, consumer, count, own_until, has_record = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
    local lasts, data, counts = ARGV[a + 5], ARGV[a + 6], ARGV[a + 7] == '1'
    local of_events, of_effects = tonumber(ARGV[a + 8]), tonumber(ARGV[a + 9])
    local mark = KEYS[k]
    a, k = a + 10, k + 1
    local events, effects = {}, {}
    for i = 1, of_events do
      local n = tonumber(ARGV[a])
      events[i] = { key = KEYS[k], from = a + 1, to = a + n }
      a, k = a + n + 1, k + 1
    end
    for i = 1, of_effects do
      local n, line, args = tonumber(ARGV[a + 5]), lines[ARGV[a]], {}
      local e = { command = ARGV[a], key = KEYS[k], presence = ARGV[a + 1], value = ARGV[a + 2], least = ARGV[a + 3],
        most = ARGV[a + 4], args = args }
      if line then
        e.line, e.at, e.from, e.to = line, k, a + 6, a + 5 + n
        k = k + 2
      else
        for j = 1, n do args[j] = ARGV[a + 5 + j] end
      end
      effects[i] = e
      a, k = a + 6 + n, k + 1
    end

    local p = redis.call('XPENDING', stream, group, id, id, 1)
    local this = id .. ':' .. count
    if #p == 0 then
      if string.find(record, ' ' .. this .. ' ', 1, true) then
        done[#done + 1] = this
        return { 'done' }
      end
      if own_until == '0' then return { 'nobody' } end
      -- There is no delivery count any more to fence a repeat: a guard does.
      if is_guarded(guards, id, now) then return { 'done' } end
      if now > tonumber(own_until) then return { 'late', string.format('%.0f', now) } end
    elseif p[1][2] ~= consumer or p[1][4] ~= tonumber(count) then
      return { 'taken' }
    end

    kinds, cells, wiped = {}, {}, {}
    local function acknowledge()
      acked[#acked + 1] = id
      if has_record == '1' then recorded[#recorded + 1] = id end
      if #p == 0 then nobodys[#nobodys + 1] = id end
    end
    if lasts ~= '0' then
      if kind(mark) ~= 'none' and kind(mark) ~= 'string' then
        return { 'failed', mark .. ': the key holds a ' .. kind(mark) }
      end
      local other, its = string.match(counts and redis.call('GET', mark) or '', '^done (%S+) ?(%x*)$')
      if other and other ~= id then
        acknowledge()
        return { 'duplicate', its ~= '' and its ~= data and 1 or 0 }
      end
      effects[#effects + 1] = { command = 'SET', key = mark, args = { 'done ' .. id .. ' ' .. data, 'PX', lasts } }
    end
    for _, e in ipairs(events) do
      if kind(e.key) ~= 'none' and kind(e.key) ~= 'stream' then
        return { 'failed', 'emitting to ' .. e.key .. ': the key holds a ' .. kind(e.key) }
      end
      if not may_on('XADD', e.key) then
        return { 'failed', 'emitting to ' .. e.key .. ': the ACL of this user lacks XADD of it' }
      end
      if is_sealed(e.key) then return { 'sealed' } end
      kinds[e.key] = 'stream'
    end
    for i = 1, of_effects do
      local e = effects[i]
      local no = (e.line and e.line.look or look)(e, i)
      if no then return no end
    end
    local err, begun = apply(events, effects)
    if err then return { 'failed', begun and 'PARTLY DONE: ' .. err or err } end
    done[#done + 1] = this
    acknowledge()
    return { 'done' }
  end
  while a <= #ARGV do out[#out + 1] = one() end

  -- Where nothing was written yet this may be refused for want of memory: then all of it is sent again.
  done[#done + 1] = ''
  redis.call('HSET', commits, me, table.concat(done, ' '))
  if #acked > 0 then
    redis.call('XACK', stream, group, unpack(acked))
    if delete then redis.call('XDEL', stream, unpack(acked)) end
  end
  if #recorded > 0 then
    redis.call('HDEL', failures, unpack(recorded))
    redis.call('ZREM', retry, unpack(recorded))
  end
  -- What is repeated of another step must find that what it speaks of has succeeded: see ack.lua.
  guard(guards, recorded, now, me)
  guard(guards, nobodys, now, me, true)
  return out
end
