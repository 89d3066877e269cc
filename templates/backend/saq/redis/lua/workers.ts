import { readClock, script } from "./script.js";

/**
 * Stores the info of a worker and renews its lease. Returns the time.
 *
 * KEYS: the worker's info, stats, leases. ARGV: the info as JSON, seconds for which it is valid, the worker's id.
 */
export const saveWorkerScript = script(`
${readClock}
local expires = string.format('%.0f', now + ARGV[2] * 1000)
redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], 0, string.format('%.0f', now))
redis.call('ZADD', KEYS[2], expires, KEYS[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[3], expires, ARGV[3])
return string.format('%.0f', now)
`);

/**
 * Looks at the owners of running jobs. Returns for each job a text: '' = the claim owns it, 'lost', 'gone', or the
 * document of a job that the caller must look at.
 *
 * KEYS: claims, then ids. ARGV: the token of each claim.
 */
export const ownersScript = script(`
local result = {}
for i = 2, #KEYS do
  local document = redis.call('GET', KEYS[i])
  if not document then result[i - 1] = 'gone'
  elseif redis.call('HGET', KEYS[1], KEYS[i]) ~= ARGV[i - 1] then result[i - 1] = 'lost'
  elseif string.sub(document, -18) == '"status":"active"}' then result[i - 1] = ''
  else result[i - 1] = document end
end
return result
`);

/**
 * Removes ids that no job belongs to any more from the lists. KEYS: active, incomplete, claims. ARGV: ids.
 */
export const forgetScript = script(`
for _, id in ipairs(ARGV) do
  redis.call('LREM', KEYS[1], 0, id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
end
return 0
`);
