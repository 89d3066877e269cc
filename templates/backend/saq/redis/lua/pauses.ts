import { readClock, script } from "./script.js";

/**
 * Stores a pause, and removes other pauses that have ended. Returns the pause as it is stored: when it began, when it
 * ends (epoch ms, '-' = never), and the details, with a space between them.
 *
 * KEYS: pauses. ARGV: target, seconds ('' = until it is removed), details as JSON, channel and text of a notification.
 */
export const setPauseScript = script(`
${readClock}
local pauses = KEYS[1]
-- First a write that needs no memory: after it, Redis lets the script write although its memory is full.
redis.call('HDEL', pauses, '')
local all = redis.call('HGETALL', pauses)
for i = 1, #all, 2 do
  local ends = string.match(all[i + 1], '^%d+ (%d+) ')
  if ends and tonumber(ends) <= now then redis.call('HDEL', pauses, all[i]) end
end
local ends = ARGV[2] == '' and '-' or string.format('%.0f', now + math.ceil(ARGV[2] * 1000))
local pause = string.format('%.0f', now) .. ' ' .. ends .. ' ' .. ARGV[3]
redis.call('HSET', pauses, ARGV[1], pause)
redis.call('PUBLISH', ARGV[4], ARGV[5])
return pause
`);

/**
 * Removes a pause. Returns 1 if it was in effect.
 *
 * KEYS: pauses. ARGV: target, channel and text of a notification.
 */
export const removePauseScript = script(`
${readClock}
local pause = redis.call('HGET', KEYS[1], ARGV[1])
if not pause then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
local ends = string.match(pause, '^%d+ (%d+) ')
return (ends and tonumber(ends) <= now) and 0 or 1
`);
