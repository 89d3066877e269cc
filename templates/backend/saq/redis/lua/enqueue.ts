import { script } from "./script.js";

/**
 * Stores jobs. Returns 1 for each job that was stored, 0 for each job whose key belongs to an unfinished job.
 *
 * KEYS: incomplete, queued, claims, the three sets of finished jobs; then for each job its id and its abort key.
 * ARGV: for each job its document, its score ('0' = due now), and '1' if another job may have its key. The last argument
 * is '1' if the jobs may have been stored by an earlier call whose response was lost.
 */
export const enqueueScript = script(`
local incomplete, queued, claims = KEYS[1], KEYS[2], KEYS[3]
local resent = ARGV[#ARGV] == '1'
local tail = '"status":"queued"}'
local stored, due = {}, {}
for i = 1, (#KEYS - 6) / 2 do
  local id, abort = KEYS[5 + 2 * i], KEYS[6 + 2 * i]
  local document, score, keyed = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i] == '1'
  local free = not keyed
    or (redis.call('EXISTS', abort) == 0 and redis.call('HEXISTS', claims, id) == 0)
  if resent then
    local present = redis.call('GET', id)
    local own = string.sub(document, 1, #document - #tail)
    if present and string.sub(present, 1, #own) == own then
      stored[i] = 1
      free = false
    end
  end
  if free and redis.call('ZADD', incomplete, 'NX', score, id) == 1 then
    redis.call('SET', id, document)
    if keyed then for k = 4, 6 do redis.call('ZREM', KEYS[k], id) end end
    if score == '0' then due[#due + 1] = id end
    stored[i] = 1
  else
    stored[i] = stored[i] or 0
  end
end
for first = 1, #due, 5000 do
  redis.call('RPUSH', queued, unpack(due, first, math.min(first + 4999, #due)))
end
return stored
`);
