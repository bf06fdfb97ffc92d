-- How far a group has read. What is above is yet to be delivered as new, also what it had: then it was set back.
local function read_up_to(stream, group)
  for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = {}
    for i = 1, #g, 2 do info[g[i]] = g[i + 1] end
    if info.name == group then return info['last-delivered-id'] end
  end
end
