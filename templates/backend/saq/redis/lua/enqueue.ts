import { readClock, script } from "./script.js";
import { takenBy } from "./taken-key.js";

/**
 * Stores jobs. Returns 1 for each job that was stored, 0 for each job whose key belongs to an unfinished job, and 2 for
 * each job whose key belongs to a job of another queue.
 *
 * Most jobs are due now, keep their document for some time, and have a key that no other job can have. These are
 * written together: a call of Redis from Lua costs as much as what it does.
 *
 * If the jobs may have been stored by an earlier call whose response was lost, a job counts as stored if a job with its
 * key and with the same time of its enqueue exists. The document of a short-lived job may be gone by then, so such jobs
 * are remembered for two minutes.
 *
 * KEYS: incomplete, queued, claims, the three sets of finished jobs, recent; the ids of the jobs; the abort keys of the
 * jobs whose key another job may have. ARGV: the name of the queue as JSON; the number of jobs; their documents; the
 * number of unusual jobs; for each unusual job its number, its score ('0' = due now), '1' if another job may have its
 * key, and '1' if it is short-lived. If the jobs are sent again, the times of their enqueues follow.
 */
export const enqueueScript = script(`
${readClock}
${takenBy}
local incomplete, queued, claims, recent = KEYS[1], KEYS[2], KEYS[3], KEYS[7]
local call = redis.call
local name, count = ARGV[1], tonumber(ARGV[2])
local unusual = {}
for i = 1, tonumber(ARGV[count + 3]) do unusual[tonumber(ARGV[count + 4 * i])] = count + 4 * i end
local times = count + 3 + 4 * tonumber(ARGV[count + 3])
local resent = #ARGV > times
local nextAbort = 7 + count
local stored, due, scores, documents = {}, {}, {}, {}
for i = 1, count do
  local id, document, at = KEYS[7 + i], ARGV[2 + i], unusual[i]
  local score, keyed, shortLived = '0', false, false
  if at then
    score, keyed, shortLived = ARGV[at + 1], ARGV[at + 2] == '1', ARGV[at + 3] == '1'
  end
  local abort
  if keyed then
    nextAbort = nextAbort + 1
    abort = KEYS[nextAbort]
  end
  local known = false
  if resent then
    local queuedAt = ARGV[times + i]
    local present = call('GET', id)
    known = present and (string.find(present, '"queued":' .. queuedAt, 1, true)
      or string.find(present, '"queued": ' .. queuedAt, 1, true))
    if shortLived and call('ZSCORE', recent, id .. redis.sha1hex(document)) then known = true end
  end
  stored[i] = 1
  if not known and not at and not resent then
    local size = #scores
    scores[size + 1], scores[size + 2] = '0', id
    documents[size + 1], documents[size + 2] = id, document
    due[#due + 1] = id
  elseif not known then
    local taken = keyed and takenBy(id, abort, claims, name)
    if taken then
      stored[i] = taken == 'other_queue' and 2 or 0
    elseif call('ZADD', incomplete, 'NX', score, id) == 1 then
      call('SET', id, document)
      if keyed then for k = 4, 6 do call('ZREM', KEYS[k], id) end end
      if score == '0' then due[#due + 1] = id end
      if shortLived then
        call('ZREMRANGEBYSCORE', recent, 0, string.format('%.0f', now))
        call('ZADD', recent, string.format('%.0f', now + 120000), id .. redis.sha1hex(document))
        call('EXPIRE', recent, 180)
      end
    else
      stored[i] = 0
    end
  end
end
if #scores > 0 then
  call('ZADD', incomplete, unpack(scores))
  call('MSET', unpack(documents))
end
if #due > 0 then call('RPUSH', queued, unpack(due)) end
return stored
`);
