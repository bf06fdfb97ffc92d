-- Adds to a stream what waited for it in the outbox of another slot, each once and in their order. It ends at the first
-- that can't be added, for those behind it come after it.
-- Behind: common/rights
-- KEYS: stream, the mark of each
-- ARGV: how long a mark lasts (ms), then of each: number of strings, strings
-- Answers: for each that is in now whether it is new (0|1), and behind those the error it ended with, if it did
local stream, window = KEYS[1], ARGV[1]
redis.call('XLEN', stream) -- WRONGTYPE surfaces before the first write
local no = lacks(stream, 'XADD', KEYS[2], 'GET SET PEXPIRE')
if no then return no end
local out, a, k = {}, 2, 2
while a <= #ARGV do
  local n, mark = tonumber(ARGV[a]), KEYS[k]
  local known = redis.pcall('GET', mark)
  if type(known) == 'table' and known.err then
    out[#out + 1] = known.err .. ' (' .. mark .. ' should be the mark of an event)'
    return out
  end
  if known then
    -- It counts from the last time that somebody may have missed the answer. And it is a write: else WAIT, behind this on
    -- the same connection, would not wait for what another connection has written.
    redis.call('PEXPIRE', mark, window)
    out[#out + 1] = 0
  else
    local id = redis.pcall('XADD', stream, '*', unpack(ARGV, a + 1, a + n))
    if type(id) == 'table' and id.err then
      out[#out + 1] = id.err
      return out
    end
    redis.call('SET', mark, id .. ' 0', 'PX', window)
    out[#out + 1] = 1
  end
  a, k = a + n + 1, k + 1
end
return out
