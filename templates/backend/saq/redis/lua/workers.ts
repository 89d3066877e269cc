import { readClock, script } from "./script.js";

/**
 * Renews the lease of a worker. Returns the time. It names one key only: while a cluster moves the queue's keys, its
 * nodes refuse scripts with several keys.
 *
 * KEYS: leases. ARGV: the worker's id, the time for which it keeps its jobs, ms.
 */
export const renewLeaseScript = script(`
${readClock}
-- First a write that needs no memory: after it, Redis lets the script write although its memory is full.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(0')
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
return string.format('%.0f', now)
`);

/**
 * Stores the info of a worker. Returns the pauses (targets and values in turn) and the names of the tasks with jobs
 * that were put aside.
 *
 * KEYS: the worker's info, stats, pauses, tasks with jobs that were put aside. ARGV: the info as JSON, seconds for
 * which it is valid.
 */
export const saveWorkerScript = script(`
${readClock}
local expires = string.format('%.0f', now + ARGV[2] * 1000)
-- First a write that needs no memory: after it, Redis lets the script write although its memory is full.
redis.call('ZREMRANGEBYSCORE', KEYS[2], 0, string.format('%.0f', now))
redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[2], expires, KEYS[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return {redis.call('HGETALL', KEYS[3]), redis.call('SMEMBERS', KEYS[4])}
`);

/**
 * Looks at the owners of running jobs. Returns for each job a text: '' = the claim owns it, 'lost', 'gone', or
 * 'changed': the document has changed since the claim, and the caller must read it.
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
  else result[i - 1] = 'changed' end
end
return result
`);

/**
 * Removes the ids of jobs that are finished or gone from the lists of unfinished jobs, unless the job has changed since
 * it was read: its key may belong to a new job by now.
 *
 * KEYS: active, incomplete, claims, then ids. ARGV: the hash of each document that was read ('' = there was none).
 */
export const forgetScript = script(`
for i = 4, #KEYS do
  local id = KEYS[i]
  local document = redis.call('GET', id)
  if (document and redis.sha1hex(document) or '') == ARGV[i - 3] then
    redis.call('LREM', KEYS[1], 0, id)
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[3], id)
  end
end
return 0
`);

/**
 * Removes the ids of expired jobs from a set of finished jobs, except for those that have a later score by now.
 *
 * KEYS: the set. ARGV: the time until which they had to expire, epoch ms; then ids.
 */
export const forgetExpiredScript = script(`
local limit = tonumber(ARGV[1])
for i = 2, #ARGV do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) <= limit then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 0
`);

/**
 * Removes the leases of dead workers, except for those that were renewed since they were read.
 *
 * KEYS: leases. ARGV: for each worker its id and its score as it was read.
 */
export const forgetLeasesScript = script(`
for i = 1, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 0
`);
