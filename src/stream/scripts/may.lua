-- Says whether its user may run commands, none of which is run. Touches no key: what may not be touched could be none of a
-- script's keys, so that their names are arguments here.
-- ARGV: of each command its words, a zero byte between two
-- Answers: for each 1, or 0; 1 for what this server does not know
local answers = {}
for a = 1, #ARGV do
  local words = {}
  for word in string.gmatch(ARGV[a], '%Z+') do words[#words + 1] = word end
  local known, may = pcall(redis.acl_check_cmd, unpack(words))
  answers[a] = (known and not may) and 0 or 1
end
return answers
