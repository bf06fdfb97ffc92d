-- Begins a view that is built beside the one that is served, or has it served in its place.
-- Behind: common/ids, common/reached, common/projection
-- KEYS: public stream, checkpoint, checkpoint of what is built, dead letters, its dead letters, replayed events, the
--       highest position the public stream ever gave
-- ARGV: projection, me, lease in ms, step: begin|switch, then to switch: generation that was built, generation it is
--       built beside
-- Answers: to begin: {busy, whose, ms left}: another builds one; {yours, generation to be built, generation that is
--          served or 0, events in it}
--          to switch: {gone}: another builds one by now, or another was built; {behind, its position, position of what
--          is served}; {done}
local stream, checkpoint, rebuild, dead, new_dead, again, reached = unpack(KEYS)
local name, me, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = clock()
local is, new = map(redis.call('HGETALL', checkpoint)), map(redis.call('HGETALL', rebuild))
redis.call('XLEN', dead) -- WRONGTYPE surfaces before the first write
redis.call('XLEN', new_dead)
redis.call('XLEN', again)
if ARGV[4] == 'begin' then
  local left = new.runner and new['until'] - now or 0
  if left > 0 and left <= lease * 10 then return { 'busy', new.runner, left } end
  -- Never one that was begun before: whatever is left of that is another's.
  local made = tonumber(is.made or '0') + 1
  redis.call('HSET', checkpoint, 'made', text(made))
  redis.call('DEL', rebuild, new_dead)
  -- Whoever began one before may have died of an event, which this one meets, too.
  local deaths, danger, suspect, killed = new.deaths or '0', new.danger, new.suspect, new['suspect.deaths'] or '0'
  if new.runner then
    deaths, danger = text(deaths + 1), new.position
    if new.noted then suspect, killed = new.noted, text((new.noted == suspect and killed or 0) + 1) end
  end
  if danger then redis.call('HSET', rebuild, 'deaths', deaths, 'danger', danger) end
  if suspect then redis.call('HSET', rebuild, 'suspect', suspect, 'suspect.deaths', killed) end
  redis.call('HSET', rebuild, 'generation', text(made), 'made', text(made), 'position', '0-0', 'read', '-1',
    'passed', '0', 'bad', '0', 'state', 'running', 'runner', me, 'until', text(now + lease))
  return { 'yours', text(made), is.generation or '0', is.passed or '0' }
end

if new.runner ~= me or new.generation ~= ARGV[5] or (is.generation or '0') ~= ARGV[6] then return { 'gone' } end
if is.position and above(is.position, new.position) then
  -- It can be reached only where the public stream is as far, which one that was made anew may not be.
  passed(reached, is.position)
  local public, err = public_of(stream, reached, new.position, tonumber(new.read))
  if not public then return err end
  return { 'behind', new.position, is.position }
end
redis.call('HSET', checkpoint, 'generation', new.generation, 'position', new.position, 'read', new.read,
  'passed', new.passed, 'bad', new.bad, 'state', 'running')
redis.call('HDEL', checkpoint, 'stopped.at', 'stopped.why', 'stopped.held', 'noted', 'deaths', 'danger', 'suspect',
  'suspect.deaths')
-- Bad events are those of the view that is served: this one has met them all anew.
redis.call('DEL', dead, again)
if redis.call('EXISTS', new_dead) == 1 then redis.call('RENAME', new_dead, dead) end
redis.call('DEL', rebuild)
stand(stream, name, new.position, new.read)
return { 'done' }
