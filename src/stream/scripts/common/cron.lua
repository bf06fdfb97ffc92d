-- What is kept of crons: a record each as JSON, all of whose values are text, and behind it its history. The next
-- occurrence's event stands on the schedule under an id that begins with its cron's name.
local function cron_of(id) return string.match(id, '^cron:([^:]+):(.+)$') end

-- The record, and as it is kept; nil where there is none, or other hands have spoilt it.
local function record_of(key, name)
  local kept = redis.call('HGET', key, name)
  local ok, record = pcall(cjson.decode, kept or '')
  if not ok or type(record) ~= 'table' then return nil, kept end
  for _, field in ipairs({ 'next', 'due', 'state', 'declared', 'paused', 'paused_until', 'entry', 'group' }) do
    if type(record[field]) ~= 'string' then record[field] = '' end
  end
  return record, kept
end

-- Whether the group still has the event that was added last, or has yet to read it.
local function is_out(stream, record)
  local id, group = record.entry, record.group
  if not string.match(id, '^%d+-%d+$') or group == '' then return false end
  local p = redis.pcall('XPENDING', stream, group, id, id, 1)
  if p.err then return false end
  if #p == 1 then return true end
  local last = read_up_to(stream, group)
  return last and above(id, last) and #redis.call('XRANGE', stream, id, id) == 1 or false
end

local function is_paused(record, now)
  return record.paused ~= '' and (record.paused_until == '' or tonumber(record.paused_until) > tonumber(now))
end

-- Writes a line of its history, the newest first.
local function note_cron(key, name, line)
  local lines = redis.call('HGET', key, name .. ':log') or ''
  redis.call('HSET', key, name .. ':log', string.sub(line .. '\n' .. lines, 1, 12000))
end
