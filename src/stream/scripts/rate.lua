-- Grants starts at a rate that a whole group keeps to: the generic cell rate algorithm, whose state is the time until
-- which all that may start has started (in µs).
-- KEYS: state
-- ARGV: µs that one start takes up, most at once, how many are wanted
-- Answers: how many are granted, µs until the next one could be (0 where all are granted)
local interval, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local most = now + burst * interval
-- What lies further ahead was noted before the clock was set back, or under another setting: what may start at once has.
local noted = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
local taken = math.min(math.max(noted, now), most)
local granted = math.max(0, math.min(wanted, math.floor((most - taken) / interval)))
if granted > 0 or noted > most then
  taken = taken + granted * interval
  redis.call('SET', KEYS[1], string.format('%.0f', taken), 'PX', string.format('%.0f', math.ceil((taken - now) / 1000) + 1))
end
local wait = 0
if granted < wanted then wait = math.max(1, taken + interval - most) end
return { granted, string.format('%.0f', wait) }
