-- How many entries of a stream a group has not read. The server's own number comes from two counts, of entries ever added
-- and of entries read: before Redis 8.2 and Valkey 9 what was trimmed unread counts as unread still. It is unknown where
-- entries were deleted, or the group begins in the middle.
local function trusts_lag()
  local valkey = rawget(_G, 'server')
  if valkey and valkey.VALKEY_VERSION_NUM then return valkey.VALKEY_VERSION_NUM >= 0x90000 end
  return redis.REDIS_VERSION_NUM >= 0x80200
end

-- `about`: what XINFO STREAM says of the stream; `group`: what XINFO GROUPS says of the group; `settled`: how many entries
-- were trimmed that every group had settled. Answers the number, and whether there are at least so many (0|1).
local function lag_of(stream, about, group, settled, most, most_bytes)
  local last, length, first = group['last-delivered-id'], about.length, about['first-entry']
  if not first or not above(about['last-generated-id'], last) then return 0, 0 end
  if above(first[1], last) then return length, 0 end
  local gone = about['entries-added'] - length
  if type(group.lag) == 'number' and group.lag >= 0 and group.lag <= length
    and (gone == 0 or gone == tonumber(settled or 0) or trusts_lag()) then
    return group.lag, 0
  end
  -- Counted, one at a time so that what lies in memory at once is one entry: those behind it, and if they are too many
  -- those before it.
  local function count(from, to)
    local counted, bytes = 0, 0
    while from do
      local entry = redis.call('XRANGE', stream, from, to, 'COUNT', 1)[1]
      if not entry then return counted, true end
      counted = counted + 1
      for _, s in ipairs(entry[2]) do bytes = bytes + #s end
      from = just_above(entry[1])
      if counted >= most or bytes > most_bytes then return counted, false end
    end
    return counted, true
  end
  local unread, all = count(just_above(last), '+')
  if all or unread >= length then return unread, 0 end
  local read
  read, all = count('-', last)
  if all then return length - read, 0 end
  return unread, 1
end

-- Whether a stream has the entry that seals it (0|1): the last there can be, and no event.
local function seals_of(stream)
  local entry = redis.call('XRANGE', stream, MAX .. '-' .. MAX, MAX .. '-' .. MAX)[1]
  local fields = entry and entry[2] or {}
  return fields[1] == 'type' and fields[2] == 'streamhand.sealed' and 1 or 0
end
