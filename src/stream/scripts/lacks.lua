-- Says which right its user lacks. Touches no key: what may not be touched could be none of a script's keys, so that
-- their names are arguments here.
-- Behind: common/rights
-- ARGV: a key this user is known to have rights to; then of every key: its name, the commands on it (with `|` between a
--       command and its subcommand), a space between two
-- Answers: {place of the key, command, what is not allowed: key|command}, or false
for a = 2, #ARGV, 2 do
  local key = ARGV[a]
  for command in string.gmatch(ARGV[a + 1], '%S+') do
    if not may_on(command, key) then
      local is_key = key ~= ARGV[1] and may_on(command, ARGV[1]) or not may_on('TYPE', key)
      return { a / 2, (string.gsub(command, '|', ' ')), is_key and 'key' or 'command' }
    end
  end
end
return false
