-- Appends events to aggregates, and puts the same events on the public stream: all of them, or nothing.
-- Behind: common/ids, common/reached, common/appending
-- KEYS: public stream, the highest position it ever gave, then each aggregate
-- ARGV: the version of the first event, where there is one aggregate, it is expected at the version before, and it is
--       known that none of the events is its last one, else empty; then for each aggregate: the version it is expected
--       at (or exists|any), number of events; then of every event: number of strings, strings
-- Answers: positions on the public stream, by spaces, where the first was given and is right: a list costs more
--       {'done', is it new (1), a repeat (0), or a repeat that nothing could be written for (2), then for each aggregate: {first version, positions on the public stream}}
--       {'conflict', place of the aggregate, its version}
--       {'overlap', place of the aggregate, its version}
--       {'strange', place of the aggregate}: it does not begin with its first event
local public, reached = KEYS[1], KEYS[2]
local to_public = { key = public, reached = reached, first = 3, last = #KEYS - 1 }

-- The usual case, in the fewest steps. An aggregate with so many events whose ids end there
-- lacks none of them; that the ids end there is said by its first XADD.
local first = tonumber(ARGV[1])
if first and redis.pcall('XLEN', KEYS[3]) == first - 1 then
  local version, count, positions, from = ARGV[1], tonumber(ARGV[3]), {}, 5
  for i = 1, count do
    local to = from - 1 + ARGV[from - 1]
    local position = publish(to_public, version, from, to)
    local refused = position.err and position
    if not refused then
      local stored = redis.pcall('XADD', KEYS[3], version .. '-0', 'position', position, unpack(ARGV, from, to))
      if stored.err then
        -- Other hands have deleted events there, or it is another stream. Nobody has seen yet what is taken back.
        redis.call('XDEL', public, position)
        refused = stored
      end
    end
    if refused then
      if i > 1 then
        redis.call('SET', reached, positions[i - 1])
        return refused
      end
      break
    end
    if count == 1 then return position end
    positions[i], version, from = position, string.format('%.0f', first + i), to + 2
  end
  if #positions == count then
    redis.call('SET', reached, positions[count])
    return table.concat(positions, ' ')
  end
end

local public_is = redis.pcall('XLEN', public) -- WRONGTYPE surfaces before the first write
if type(public_is) == 'table' then return wrong(public, public_is.err) end

local all, repeats, a = {}, 0, 2
for k = 3, #KEYS - 1 do
  local no, one, behind = look_at(k - 2, KEYS[k], ARGV[a], tonumber(ARGV[a + 1]), a + 2)
  if no then return no end
  if #one.positions == one.count then repeats = repeats + 1 end
  all[k - 2], a = one, behind
end

if repeats > 0 then
  for place, one in ipairs(all) do
    if #one.positions < one.count then return { 'overlap', place, one.after } end
  end
end

local answer = { 'done', repeats > 0 and 0 or 1 }
if repeats > 0 then
  -- WAIT covers what its own connection wrote: of a repeat it would say nothing. What an aggregate is at is written as
  -- it is; replicas that have this have what was before it.
  local same = redis.pcall('XSETID', all[1].key, entry_of(all[1].version))
  if same.err then answer[2] = 2 end
end
for place, one in ipairs(all) do
  local refused = repeats == 0 and store(to_public, one)
  if refused then return refused end
  answer[place + 2] = { one.after + 1, one.positions }
end
reached_now(to_public)
return answer
