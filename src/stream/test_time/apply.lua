-- Does one effect by itself.
-- Behind: common/effects
-- KEYS: what it is on
-- ARGV: command, presence, value, least, most, then its arguments
kinds, cells, wiped = {}, {}, {}
local args = {}
for i = 6, #ARGV do args[#args + 1] = ARGV[i] end
local e = { command = ARGV[1], key = KEYS[1], presence = ARGV[2], value = ARGV[3], least = ARGV[4], most = ARGV[5],
  args = args }
local no = look(e, 1)
if no then return no end
local err = write(e.command, e.key, unpack(args))
if err then return { 'failed', err } end
return { 'done' }
