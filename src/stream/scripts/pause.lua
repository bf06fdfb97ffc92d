-- Pauses something for the group. What is paused already stays as it is, but for its end where one is given.
-- KEYS: paused
-- ARGV: what (stream, or handler: and a type), who does it as JSON, for how many ms ('' for no end), why as JSON or ''
-- Answers: whether it was not paused before (1|0), and until when it is (ms) or false
local paused, what = KEYS[1], ARGV[1]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function note(since, till, by, why)
  return '{"since_ms":' .. since .. (till and ',"until_ms":' .. till or '') .. ',"by":' .. by
    .. (why ~= '' and ',"reason":' .. why or '') .. '}'
end
local till = ARGV[3] ~= '' and string.format('%.0f', now + ARGV[3])
local was = redis.call('HGET', paused, what)
local ends = was and string.match(was, '"until_ms":(%d+)')
if not was or ends and tonumber(ends) <= now then
  redis.call('HSET', paused, what, note(string.format('%.0f', now), till, ARGV[2], ARGV[4]))
  return { 1, till }
end
if till then
  -- Who paused it, when and why stays.
  local rest = string.gsub(was, '"until_ms":%d+,', '', 1)
  local put, n = string.gsub(rest, '^({"since_ms":%d+,)', '%1"until_ms":' .. till .. ',')
  if n == 1 then
    redis.call('HSET', paused, what, put)
    return { 0, till }
  end
end
return { 0, ends or false }
