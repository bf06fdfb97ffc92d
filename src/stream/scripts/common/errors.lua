-- The last five errors of an entry. The record of one that is parked ends in its last error, and behind it in when that
-- was and in those before; an earlier release takes all of this for the error. Each is `<attempt> <when, ms> <how often in a
-- row> <error>`, with ASCII 30 between two. A letter has them beside it, among its notes.
local SEPARATOR, ERRORS, LONGEST = '\30', 5, 400

-- What a record ends in, the last one first.
local function errors_of(tail)
  local list, first = {}, true
  for part in string.gmatch(tail .. SEPARATOR, '(.-)' .. SEPARATOR) do
    if first then
      if part ~= '' then list[1] = { attempt = '0', at = '0', times = '1', text = part } end
    else
      local attempt, at, times, text = string.match(part, '^(%d+) (%d+) (%d+)(.*)$')
      local is_of_the_first = text == ''
      if is_of_the_first and list[1] and #list == 1 and list[1].at == '0' then
        list[1].attempt, list[1].at, list[1].times = attempt, at, times
      elseif attempt and not is_of_the_first then
        list[#list + 1] = { attempt = attempt, at = at, times = times, text = string.sub(text, 2) }
      end
    end
    first = false
  end
  return list
end

-- The same with one more before them.
local function with_error(list, text, attempt, now)
  text = string.gsub(text, SEPARATOR, ' ')
  now = string.format('%.0f', now)
  local latest = list[1]
  if latest and latest.text == text then
    latest.attempt, latest.at = attempt, now
    latest.times = string.format('%.0f', latest.times + 1)
    return list
  end
  if latest and #latest.text > LONGEST then latest.text = string.sub(latest.text, 1, LONGEST) .. '…' end
  table.insert(list, 1, { attempt = attempt, at = now, times = '1', text = text })
  list[ERRORS + 1] = nil
  return list
end

local function error_parts(list, from)
  local parts = {}
  for i = from, #list do
    parts[#parts + 1] = table.concat({ list[i].attempt, list[i].at, list[i].times, list[i].text }, ' ')
  end
  return parts
end

-- As a record ends.
local function as_tail(list)
  local latest = list[1]
  if not latest then return '' end
  local parts = error_parts(list, 2)
  table.insert(parts, 1, table.concat({ latest.attempt, latest.at, latest.times }, ' '))
  return latest.text .. SEPARATOR .. table.concat(parts, SEPARATOR)
end

-- What a record ends in, with one more error. Most have none before it.
local function with_one_more(tail, text, attempt, now)
  if tail == '' and not string.find(text, SEPARATOR, 1, true) then
    return text .. SEPARATOR .. attempt .. ' ' .. now .. ' 1'
  end
  return as_tail(with_error(errors_of(tail), text, attempt, now))
end
