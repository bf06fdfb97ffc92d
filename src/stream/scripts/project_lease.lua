-- Whose it is to run a projection, and from where: one runner of all, for a lease that its steps renew.
-- Behind: common/ids, common/reached, common/projection
-- KEYS: public stream, checkpoint, the highest position that stream ever gave
-- ARGV: projection, me, lease in ms, step: first|take|keep|arrive|note|calm|stop|leave, is the public stream told (0|1),
--       then to arrive: generation, position, the public stream's last id and how many were added to it when the
--       aggregates were begun; to note: the event that is about to be applied alone, or '' that none is; to stop:
--       generation, position, place of what stopped it, why, is it to be held until it is resumed (0|1)
-- Answers: {theirs, ms left, whose}; {stopped, place, why} (to first and take, where it has stopped: only the first look
--          of a process goes on from there, and none where it is held: by an event that kills who applies it, or because
--          the public stream was made anew and what is on it can't be told from what the view has); {gone} (to any other step: another has it by now,
--          or it has moved); {ok} (stopped, left, noted or calm); {yours, generation, position, entries read or -1,
--          whether some were missed (0|1), the public stream's last id, entries ever added to it, how many in a row have
--          died who ran it, where the last one stood, the event that was noted when they died or '', how many with that}
--
-- Who dies while it is theirs leaves their name; who leaves does not. What the next one has to know is kept: how many
-- have died, where, and of what, if that was noted.
local stream, checkpoint, reached = KEYS[1], KEYS[2], KEYS[3]
local name, me, lease, step, told = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5] == '1'
local now = clock()
local is = map(redis.call('HGETALL', checkpoint)) -- WRONGTYPE surfaces before the first write
local mine = is.runner == me
if step == 'first' or step == 'take' then
  local left = is.runner and not mine and is['until'] - now or 0
  -- A clock that was set back makes no lease longer than it ever was.
  if left > 0 and left <= lease * 10 then return { 'theirs', left, is.runner } end
  if is.state == 'stopped' and (step == 'take' or is['stopped.held'] == '1') then
    return { 'stopped', is['stopped.at'], is['stopped.why'] }
  end
elseif not mine then
  return { 'gone' }
end
if step == 'leave' then
  redis.call('HDEL', checkpoint, 'runner', 'until', 'noted')
  return { 'ok' }
end
if step == 'note' then
  if ARGV[6] == '' then
    redis.call('HDEL', checkpoint, 'noted')
  else
    redis.call('HSET', checkpoint, 'noted', ARGV[6], 'until', text(now + lease))
  end
  return { 'ok' }
end
if step == 'calm' then
  redis.call('HDEL', checkpoint, 'deaths', 'danger', 'suspect', 'suspect.deaths')
  return { 'ok' }
end
if (step == 'arrive' or step == 'stop') and (is.generation ~= ARGV[6] or is.position ~= ARGV[7]) then
  return { 'gone' }
end
if step == 'stop' then
  halt(checkpoint, ARGV[8], ARGV[9], ARGV[10])
  return { 'ok' }
end

-- What is built is begun by another step, and is gone with the next one that is.
if not told and not is.generation then return { 'gone' } end
local made = tonumber(is.made or '0')
local generation, position, read = is.generation or text(made + 1), is.position or '0-0', tonumber(is.read or '-1')
local group = told and is.generation and name or nil
local public, err = public_of(stream, reached, position, read, group)
if not public then return err end
if public.unsure then return halt_unsure(checkpoint, public, position) end
if step == 'arrive' then
  -- Read on from where the public stream stood: all that was before it has been seen.
  if above(ARGV[8], position) then position = ARGV[8] end
  read = tonumber(ARGV[9])
  passed(reached, position)
  -- It may have been deleted again meanwhile.
  public = public_of(stream, reached, position, read, group)
  if public.is_new then read = -1 end
elseif public.is_new then
  read = -1
end
local deaths, danger, suspect, killed = is.deaths or '0', is.danger or '0-0', is.suspect or '', is['suspect.deaths'] or '0'
if (step == 'first' or step == 'take') and is.runner and not mine then
  deaths, danger = text(deaths + 1), position
  if is.noted then
    suspect, killed = is.noted, text((is.noted == suspect and killed or 0) + 1)
    redis.call('HSET', checkpoint, 'suspect', suspect, 'suspect.deaths', killed)
    redis.call('HDEL', checkpoint, 'noted')
  end
  redis.call('HSET', checkpoint, 'deaths', deaths, 'danger', danger)
end
redis.call('HSET', checkpoint, 'generation', generation, 'made', text(math.max(made, tonumber(generation))), 'position', position,
  'read', text(read), 'passed', is.passed or '0', 'bad', is.bad or '0', 'state', 'running', 'runner', me,
  'until', text(now + lease))
redis.call('HDEL', checkpoint, 'stopped.at', 'stopped.why', 'stopped.held')
if told and (step ~= 'keep' or public.is_new) then stand(stream, name, position, text(read)) end
return { 'yours', generation, position, text(read), public.gap and 1 or 0, public.last, text(public.added), deaths, danger,
  suspect, killed }
