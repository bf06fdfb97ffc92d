-- Says of which types the next new entries of a group are, without taking them.
-- Behind: common/ids
-- KEYS: stream
-- ARGV: group, id up to which it had read when it was last looked, id up to which its entries are known ('0-0' for
--       none), most entries, most bytes
-- Answers: the types in their order, each with how many follow each other and the last one's id; the last id looked at;
--          whether there may be more behind (0|1); id up to which the group has read; whether that is further than is
--          known, or back behind where it was (0|1)
local stream, group, was, known = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local read
for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local info = {}
  for i = 1, #g, 2 do info[g[i]] = g[i + 1] end
  if info.name == group then read = info['last-delivered-id'] end
end
if not read then return { {}, known, 0, known, 1 } end
local passed = not above(known, read) or above(was, read)
local from = passed and read or known
local runs, looked, bytes, chunk, ended = {}, 0, 0, 1, false
repeat
  local start = just_above(from)
  local got = start and redis.call('XRANGE', stream, start, '+', 'COUNT', chunk) or {}
  local size = 0
  for _, entry in ipairs(got) do
    local fields, kind = entry[2], ''
    for i = #fields - 1, 1, -2 do
      size = size + #fields[i] + #fields[i + 1]
      if fields[i] == 'type' then kind = fields[i + 1] end
    end
    if #kind > 512 then kind = '' end
    from = entry[1]
    if runs[#runs - 2] == kind then
      runs[#runs - 1], runs[#runs] = runs[#runs - 1] + 1, from
    else
      for _, v in ipairs({ kind, 1, from }) do runs[#runs + 1] = v end
    end
  end
  looked, bytes = looked + #got, bytes + size
  ended = #got < chunk
  -- Large entries one by one: all of what is asked for is copied.
  chunk = size > 1024 * #got and 1 or 20
until ended or looked >= tonumber(ARGV[4]) or bytes > tonumber(ARGV[5])
return { runs, from, ended and 0 or 1, read, passed and 1 or 0 }
