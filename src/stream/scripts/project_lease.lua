-- Whose it is to run a projection, and from where: one runner of all, for a lease that its steps renew.
-- Behind: common/ids, common/projection
-- KEYS: public stream, checkpoint
-- ARGV: projection, me, lease in ms, step: first|take|keep|arrive|stop|leave, is the public stream told (0|1), then
--       to arrive: generation, position, the public stream's last id and how many were added to it when the aggregates
--       were begun; to stop: generation, position, place of what stopped it, why
-- Answers: {theirs, ms left, whose}; {stopped, place, why} (to take, where it has stopped: only the first look of a
--          process, or a rebuild, goes on from there); {gone} (to any other step: another has it by now, or it has moved);
--          {ok} (stopped or left); {yours, generation, position, entries read or -1, whether some were missed (0|1),
--          the public stream's last id, entries ever added to it}
local stream, checkpoint = KEYS[1], KEYS[2]
local name, me, lease, step, told = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5] == '1'
local now = clock()
local is = map(redis.call('HGETALL', checkpoint)) -- WRONGTYPE surfaces before the first write
local mine = is.runner == me
if step == 'first' or step == 'take' then
  local left = is.runner and not mine and is['until'] - now or 0
  -- A clock that was set back makes no lease longer than it ever was.
  if left > 0 and left <= lease * 10 then return { 'theirs', left, is.runner } end
  if step == 'take' and is.state == 'stopped' then return { 'stopped', is['stopped.at'], is['stopped.why'] } end
elseif not mine then
  return { 'gone' }
end
if step == 'leave' then
  redis.call('HDEL', checkpoint, 'runner', 'until')
  return { 'ok' }
end
if (step == 'arrive' or step == 'stop') and (is.generation ~= ARGV[6] or is.position ~= ARGV[7]) then
  return { 'gone' }
end
if step == 'stop' then
  redis.call('HSET', checkpoint, 'state', 'stopped', 'stopped.at', ARGV[8], 'stopped.why', ARGV[9])
  redis.call('HDEL', checkpoint, 'runner', 'until')
  return { 'ok' }
end

-- What is built is begun by another step, and is gone with the next one that is.
if not told and not is.generation then return { 'gone' } end
local made = tonumber(is.made or '0')
local generation, position, read = is.generation or text(made + 1), is.position or '0-0', tonumber(is.read or '-1')
if step == 'arrive' then
  -- Read on from where the public stream stood: all that was before it has been seen.
  if above(ARGV[8], position) then position = ARGV[8] end
  read = tonumber(ARGV[9])
end
redis.call('HSET', checkpoint, 'generation', generation, 'made', text(math.max(made, tonumber(generation))), 'position', position,
  'read', text(read), 'passed', is.passed or '0', 'bad', is.bad or '0', 'state', 'running', 'runner', me,
  'until', text(now + lease))
redis.call('HDEL', checkpoint, 'stopped.at', 'stopped.why')
if told and step ~= 'keep' then stand(stream, name, position, text(read)) end
local public, err = public_of(stream, position, read)
if not public then return err end
return { 'yours', generation, position, text(read), public.gap and 1 or 0, public.last, text(public.added) }
