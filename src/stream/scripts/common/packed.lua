-- Arguments that travel as one, a MessagePack list of strings: that is less work for the server than as many arguments.
local ARGV = cmsgpack.unpack(ARGV[1])
