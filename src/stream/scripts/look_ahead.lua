-- Says of which types the next new entries of a group are, without taking them.
-- Behind: common/ids
-- KEYS: stream
-- ARGV: group, id up to which they are known ('0-0' for none), most entries, most bytes
-- Answers: the types in their order, each with how many follow each other; the last id looked at; whether there may be
--          more behind (0|1); whether the group has read further than is known (0|1)
local stream, group, known = KEYS[1], ARGV[1], ARGV[2]
local read
for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local info = {}
  for i = 1, #g, 2 do info[g[i]] = g[i + 1] end
  if info.name == group then read = info['last-delivered-id'] end
end
if not read then return { {}, known, 0, 1 } end
local passed = not above(known, read)
local from = passed and read or known
local runs, looked, bytes, chunk, ended = {}, 0, 0, 1, false
repeat
  local got = redis.call('XRANGE', stream, '(' .. from, '+', 'COUNT', chunk)
  local size = 0
  for _, entry in ipairs(got) do
    local fields, kind = entry[2], ''
    for i = #fields - 1, 1, -2 do
      size = size + #fields[i] + #fields[i + 1]
      if fields[i] == 'type' then kind = fields[i + 1] end
    end
    if #kind > 512 then kind = '' end
    if runs[#runs - 1] == kind then
      runs[#runs] = runs[#runs] + 1
    else
      runs[#runs + 1], runs[#runs + 2] = kind, 1
    end
    from = entry[1]
  end
  looked, bytes = looked + #got, bytes + size
  ended = #got < chunk
  -- Large entries one by one: all of what is asked for is copied.
  chunk = size > 1024 * #got and 1 or 20
until ended or looked >= tonumber(ARGV[3]) or bytes > tonumber(ARGV[4])
return { runs, from, ended and 0 or 1, passed and 1 or 0 }
