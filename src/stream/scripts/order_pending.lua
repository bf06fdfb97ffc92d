-- What is pending of a stream whose events have an order, with whomever, and of which subject each is.
-- Behind: common/ids, common/behind
-- KEYS: stream, failures
-- ARGV: group, id to begin at, what is noted of what only waits behind another
-- Answers: {id, subject, 0 (some worker has it), 1 (it only waits behind another) or 2 (it is parked for else)} of each that
--          has a subject, id to continue at or false
local stream, failures, group, behind = KEYS[1], KEYS[2], ARGV[1], ARGV[3]
local pending, out = redis.call('XPENDING', stream, group, ARGV[2], '+', 200), {}
for _, p in ipairs(pending) do
  local entry = redis.call('XRANGE', stream, p[1], p[1])[1]
  local fields, subject = entry and entry[2] or {}, ''
  for i = 1, #fields, 2 do
    if fields[i] == 'subject' then subject = fields[i + 1] break end
  end
  if subject ~= '' then
    local is = p[2] == '(parked)' and (waits_behind(failures, p[1], behind) and 1 or 2) or 0
    out[#out + 1] = { p[1], subject, is }
  end
end
return { out, #pending == 200 and just_above(pending[200][1]) or false }
