import { readClock, script } from "./script.js";

/**
 * Stores jobs. Returns 1 for each job that was stored, 0 for each job whose key belongs to an unfinished job.
 *
 * If the jobs may have been stored by an earlier call whose response was lost, a job counts as stored if a job with its
 * key and with the same time of its enqueue exists. The document of a short-lived job may be gone by then, so such jobs
 * are remembered for two minutes.
 *
 * KEYS: incomplete, queued, claims, the three sets of finished jobs, recent; then for each job its id and its abort key.
 * ARGV: for each job its document, its score ('0' = due now), '1' if another job may have its key, and '1' if it is
 * short-lived. If the jobs are sent again, the times of their enqueues follow.
 */
export const enqueueScript = script(`
${readClock}
local incomplete, queued, claims, recent = KEYS[1], KEYS[2], KEYS[3], KEYS[7]
local call = redis.call
local count = (#KEYS - 7) / 2
local resent = #ARGV > 4 * count
local stored, due = {}, {}
for i = 1, count do
  local id, abort = KEYS[6 + 2 * i], KEYS[7 + 2 * i]
  local document, score, keyed, shortLived = unpack(ARGV, 4 * i - 3, 4 * i)
  local known = false
  if resent then
    local queuedAt = ARGV[4 * count + i]
    local present = call('GET', id)
    known = present and (string.find(present, '"queued":' .. queuedAt, 1, true)
      or string.find(present, '"queued": ' .. queuedAt, 1, true))
    if shortLived == '1' and call('ZSCORE', recent, id .. redis.sha1hex(document)) then known = true end
  end
  if known then
    stored[i] = 1
  elseif keyed == '1' and (call('EXISTS', abort) == 1 or call('HEXISTS', claims, id) == 1) then
    stored[i] = 0
  elseif call('ZADD', incomplete, 'NX', score, id) == 1 then
    call('SET', id, document)
    if keyed == '1' then for k = 4, 6 do call('ZREM', KEYS[k], id) end end
    if score == '0' then due[#due + 1] = id end
    if shortLived == '1' then
      call('ZREMRANGEBYSCORE', recent, 0, string.format('%.0f', now))
      call('ZADD', recent, string.format('%.0f', now + 120000), id .. redis.sha1hex(document))
    end
    stored[i] = 1
  else
    stored[i] = 0
  end
end
for first = 1, #due, 5000 do
  call('RPUSH', queued, unpack(due, first, math.min(first + 4999, #due)))
end
return stored
`);
