/**
 * A claim takes two scripts, because a script may read only keys that are declared when it is called: the first takes
 * ids from the queue, the second reads and changes their documents.
 */
import { readClock, script } from "./script.js";

/**
 * Moves the ids of due jobs into `active`. Returns them.
 *
 * KEYS: incomplete, queued, active, claims. ARGV: maximum number of jobs, token.
 */
export const takeScript = script(`
${readClock}
local incomplete, queued, active, claims = unpack(KEYS)
local limit, token = tonumber(ARGV[1]), ARGV[2]
-- First a write that needs no memory: after it, Redis lets the script write although its memory is full.
redis.call('HDEL', claims, '')
local due = redis.call('ZRANGEBYSCORE', incomplete, '(0', seconds, 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  redis.call('ZADD', incomplete, 0, id)
  redis.call('RPUSH', queued, id)
end
local taken, seen = {}, {}
for _, id in ipairs(redis.call('LPOP', queued, limit) or {}) do
  -- An id may be in the queue twice: Python pushes a job that it retries again when its old due time is checked.
  if not seen[id] then
    seen[id] = true
    taken[#taken + 1] = id
    redis.call('RPUSH', active, id)
    redis.call('HSETNX', claims, id, token)
  end
end
return taken
`);

/**
 * Marks taken jobs as active. Returns the time, and for each id either the number 1 and the document as it was enqueued
 * (the script has marked it), or the number 0 and a document that the caller must look at, or an empty text if the job
 * has no document.
 *
 * KEYS: active, claims, incomplete, then ids. ARGV: token, worker id as JSON, maximum
 * bytes of a document. Of a larger one only the first byte is returned.
 */
export const startScript = script(`
${readClock}
local active, claims, incomplete = KEYS[1], KEYS[2], KEYS[3]
local token = ARGV[1]
redis.call('HDEL', claims, '')
local suffix = ',"attempts":1,"started":' .. string.format('%.0f', now) .. ',"worker_id":' .. ARGV[2]
  .. ',"touched":' .. string.format('%.0f', now) .. ',"status":"active"}'
local result = {string.format('%.0f', now)}
for i = 4, #KEYS do
  local id = KEYS[i]
  local document = redis.call('GET', id)
  local fresh, text = 0, ''
  if not document then
    redis.call('LREM', active, -1, id)
    redis.call('ZREM', incomplete, id)
    if redis.call('HGET', claims, id) == token then redis.call('HDEL', claims, id) end
  else
    local isLarge = #document > tonumber(ARGV[3])
    text = isLarge and string.sub(document, 1, 1) or document
    local cut
    if string.sub(document, -19) == ',"status":"queued"}' then cut = 20
    elseif string.sub(document, -21) == ', "status": "queued"}' then cut = 22 end
    if cut and not isLarge and not string.find(document, '"attempts":', 1, true) and not string.find(document, '"touched":', 1, true) then
      fresh = 1
      redis.call('SET', id, string.sub(document, 1, -cut) .. suffix)
      redis.call('HSET', claims, id, token)
      redis.call('ZADD', incomplete, 0, id)
    end
  end
  result[#result + 1] = fresh
  result[#result + 1] = text
end
return result
`);

/** Drops claimed ids whose job does not wait any more. KEYS: active, claims. ARGV: token, then ids. */
export const dropScript = script(`
for i = 2, #ARGV do
  redis.call('LREM', KEYS[1], -1, ARGV[i])
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[1] then redis.call('HDEL', KEYS[2], ARGV[i]) end
end
return 0
`);
