-- Says of entries whose event is to be handled once whether it is done, and of several copies lets one run: the first
-- that asks, until it is settled. A claim of an entry that is neither pending nor done is void.
-- KEYS: stream, then the mark of every entry's event
-- ARGV: group, then of every entry: id, how long a claim is kept (ms), a hash of its data
-- Answers, for each: run, done, differs (done, and with other data), wait
local stream, group, out = KEYS[1], ARGV[1], {}
for k = 2, #KEYS - 1 do
  local mark, id, kept, data = KEYS[k], ARGV[3 * k - 4], ARGV[3 * k - 3], ARGV[3 * k - 2]
  -- Where the key holds something else the commit will say so.
  local was = redis.pcall('GET', mark)
  local state, other, its = string.match(type(was) == 'string' and was or '', '^(%a+) (%S+) ?(%x*)$')
  if type(was) == 'table' or (state == 'runs' and other == id) then
    out[#out + 1] = 'run'
  elseif state == 'done' then
    out[#out + 1] = its ~= '' and its ~= data and 'differs' or 'done'
  elseif state == 'runs' and #redis.call('XPENDING', stream, group, other, other, 1) > 0 then
    out[#out + 1] = 'wait'
  else
    redis.call('SET', mark, 'runs ' .. id .. ' ' .. data, 'PX', kept)
    out[#out + 1] = 'run'
  end
end
return out
