-- Sends a pulse once more whose reply got lost, unless it is there. It stands behind the worker's one before, if it does.
-- KEYS: pulse (stream)
-- ARGV: id of the worker's pulse before ('-' where there was none), worker, number, packed pulse
-- Answers: its id, and 0|1 whether it had to be sent
local key, from = KEYS[1], ARGV[1]
if from ~= '-' then from = '(' .. from end
while true do
  local some = redis.call('XRANGE', key, from, '+', 'COUNT', 100)
  for _, entry in ipairs(some) do
    local fields = entry[2]
    if fields[2] == ARGV[2] and fields[4] == ARGV[3] then return { entry[1], 0 } end
  end
  if #some < 100 then break end
  from = '(' .. some[#some][1]
end
return { redis.call('XADD', key, '*', 'w', ARGV[2], 'n', ARGV[3], 'p', ARGV[4]), 1 }
