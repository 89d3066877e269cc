/**
 * A claim takes two scripts, because a script may read only keys that are declared when it is called: the first takes
 * ids from the queue, the second reads and changes their documents. A worker that was woken by a job knows its id, so
 * that one script is enough if the claim takes only this job.
 */
import { readClock, script } from "./script.js";

/** Lua: moves the ids of due jobs into `active`; they are in `taken`. */
const take = `
local incomplete, queued, active, claims = unpack(KEYS, 1, 4)
local token, limit = ARGV[1], tonumber(ARGV[2])
local call = redis.call
-- First a write that needs no memory: after it, Redis lets the script write although its memory is full.
call('HDEL', claims, '')
local due = call('ZRANGEBYSCORE', incomplete, '(0', seconds, 'LIMIT', 0, limit)
if #due > 0 then
  for _, id in ipairs(due) do call('ZADD', incomplete, 0, id) end
  call('RPUSH', queued, unpack(due))
end
local taken, seen = {}, {}
for _, id in ipairs(call('LPOP', queued, limit) or {}) do
  -- An id may be in the queue twice: Python pushes a job that it retries again when its old due time is checked.
  if not seen[id] then
    seen[id] = true
    taken[#taken + 1] = id
  end
end
if #taken > 0 then
  call('RPUSH', active, unpack(taken))
  local new = {}
  for i, held in ipairs(call('HMGET', claims, unpack(taken))) do
    if not held then
      new[#new + 1] = taken[i]
      new[#new + 1] = token
    end
  end
  if #new > 0 then call('HSET', claims, unpack(new)) end
end
`;

/** Lua: marks the jobs as active whose ids are the keys from the fifth on. `result` is that of `startScript`. */
const start = `
local suffix = ',"attempts":1,"started":' .. string.format('%.0f', now) .. ',"worker_id":' .. ARGV[3]
  .. ',"touched":' .. string.format('%.0f', now) .. ',"status":"active"}'
local sub, find = string.sub, string.find
local result = {string.format('%.0f', now)}
local maxBytes, maxTotal = tonumber(ARGV[4]), tonumber(ARGV[5])
-- First one document, then a few at a time, and one at a time after large ones.
local first, step, total, left = 5, 1, 0, nil
while first <= #KEYS and not left do
  local last = math.min(first + step - 1, #KEYS)
  local documents = call('MGET', unpack(KEYS, first, last))
  local due = call('ZMSCORE', incomplete, unpack(KEYS, first, last))
  local started, claimed, scores = {}, {}, {}
  local before = total
  for i = first, last do
    local id, document = KEYS[i], documents[i - first + 1]
    local fresh, text = 0, ''
    if document and total > 0 and total + #document > maxTotal then
      left = i
      break
    end
    total = total + (document and #document or 0)
    if not document then
      call('LREM', active, -1, id)
      call('ZREM', incomplete, id)
      if call('HGET', claims, id) == token then call('HDEL', claims, id) end
    else
      local isLarge = #document > maxBytes
      text = isLarge and sub(document, 1, 1) or document
      local cut
      if sub(document, -19) == ',"status":"queued"}' then cut = 20
      elseif sub(document, -21) == ', "status": "queued"}' then cut = 22 end
      -- An id may be in the queue although its job is not due yet: Python pushes an id twice, and the job was stored
      -- again after its first run. Or this worker was paused between the two scripts while the job ran elsewhere.
      if cut and not isLarge and due[i - first + 1] == '0' and not find(document, '"attempts":', 1, true)
        and not find(document, '"touched":', 1, true) then
        fresh = 1
        local size = #started
        started[size + 1], started[size + 2] = id, sub(document, 1, -cut) .. suffix
        claimed[size + 1], claimed[size + 2] = id, token
        scores[size + 1], scores[size + 2] = 0, id
      end
    end
    local size = #result
    result[size + 1], result[size + 2] = fresh, text
  end
  if #started > 0 then
    call('MSET', unpack(started))
    call('HSET', claims, unpack(claimed))
    call('ZADD', incomplete, unpack(scores))
  end
  step = (total - before) / (last - first + 1) < 65536 and 25 or 1
  first = last + 1
end
-- The other documents would be too many bytes: their ids go back to where they were.
for i = #KEYS, left or #KEYS + 1, -1 do
  local id = KEYS[i]
  call('LREM', active, -1, id)
  call('LPUSH', queued, id)
  if call('HGET', claims, id) == token then call('HDEL', claims, id) end
end
`;

/**
 * Moves the ids of due jobs into `active`. Returns them.
 *
 * KEYS: incomplete, queued, active, claims. ARGV: token, maximum number of jobs.
 */
export const takeScript = script(`
${readClock}
${take}
return taken
`);

/**
 * Marks taken jobs as active. Returns the time, and for each id either the number 1 and the document as it was enqueued
 * (the script has marked it), or the number 0 and a document that the caller must look at, or an empty text if the job
 * has no document. The result ends before a document with which all of them would be too many bytes; the rest of the
 * ids is in the queue again.
 *
 * KEYS: incomplete, queued, active, claims, then ids. ARGV: token, any text, worker id as JSON, maximum bytes of a
 * document (of a larger one only the first byte is returned), maximum bytes of all documents except the first one.
 */
export const startScript = script(`
${readClock}
local incomplete, queued, active, claims = unpack(KEYS, 1, 4)
local token, call = ARGV[1], redis.call
call('HDEL', claims, '')
${start}
return result
`);

/**
 * Does what `takeScript` does. If it has taken the expected job and no other one, it returns the result of
 * `startScript` for this job instead of the ids, with `false` before it.
 *
 * KEYS: incomplete, queued, active, claims, the id of the expected job. ARGV: token, maximum number of jobs, worker id
 * as JSON, maximum bytes of a document, maximum bytes of all documents.
 */
export const takeExpectedScript = script(`
${readClock}
${take}
if #taken ~= 1 or taken[1] ~= KEYS[5] then return taken end
${start}
return {false, unpack(result)}
`);

/**
 * Drops claimed ids whose job does not wait any more. If the token is not that of this claim, another worker has taken
 * the job: then an id is removed only if `active` has it twice, because one of them is that worker's.
 *
 * KEYS: active, claims. ARGV: token, then ids.
 */
export const dropScript = script(`
local active, claims = KEYS[1], KEYS[2]
for i = 2, #ARGV do
  local id = ARGV[i]
  if redis.call('HGET', claims, id) == ARGV[1] then
    redis.call('LREM', active, -1, id)
    redis.call('HDEL', claims, id)
  elseif #redis.call('LPOS', active, id, 'COUNT', 2) == 2 then
    redis.call('LREM', active, -1, id)
  end
end
return 0
`);
