-- Whether a partition of a topic is sealed, by an entry of the highest id: its topic has grown, nothing can be added to it,
-- and what is new belongs elsewhere. Of who may not look it counts as not sealed: the write itself is refused then.
local sealed = {}
local function is_sealed(key)
  if sealed[key] ~= nil then return sealed[key] end
  if not string.find(key, '^{.+:[%d.]+}$') then
    sealed[key] = false
  else
    local seal = '18446744073709551615-18446744073709551615'
    local found = redis.pcall('XRANGE', key, seal, seal)
    sealed[key] = not found.err and #found > 0
  end
  return sealed[key]
end
