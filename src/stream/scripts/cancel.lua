-- Takes scheduled events off: they will not be added to their stream.
-- Behind: common/scheduled
-- KEYS: scheduled, events
-- ARGV: of every event: its id, then which one it is, its type and its source, or '' for the only one of that id
-- Answers: of each whether it was scheduled (0|1), or how many are, below zero, where it is not the only one: then
--       none is taken off
local scheduled, events = KEYS[1], KEYS[2]
redis.call('ZCARD', scheduled) -- WRONGTYPE surfaces before the first write
redis.call('HLEN', events)
local out = {}
for a = 1, #ARGV, 4 do
  local id, which, found = ARGV[a], ARGV[a + 1], {}
  local function look(name, its)
    if (which == '' or its == which) and redis.call('ZSCORE', scheduled, name) then found[#found + 1] = name end
  end
  if stands_alone(id) then
    -- What other hands have spoilt goes by its id.
    local kept = which ~= '' and fields_of(redis.call('HGET', events, id))
    local is_it = not kept or says(kept, 'type') == ARGV[a + 2] and says(kept, 'source') == ARGV[a + 3]
    look(id, is_it and which or nil)
  end
  for its in string.gmatch(redis.call('HGET', events, '\0i' .. id) or '', WHICH) do look(name_of(its, id), its) end
  if #found == 1 then take_off(scheduled, events, found[1]) end
  out[#out + 1] = #found < 2 and #found or -#found
end
return out
