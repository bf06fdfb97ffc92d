-- Whether a parked entry waits only because another one of its subject comes before it: that is its last error.
local function waits_behind(failures, id, behind)
  local record = redis.call('HGET', failures, id)
  local error = record and string.match(record, '^%d+ %d+ %d+ %S %S+ (.*)$')
  return error ~= nil and error ~= false and string.sub(error, 1, #behind) == behind
end
