/**
 * A claim takes two scripts, because a script may read only keys that are declared when it is called: the first takes
 * ids from the queue, the second reads and changes their documents. A worker that was woken by a job knows its id, so
 * that one script is enough if the claim takes only this job.
 */
import { readClock, script } from "./script.js";

/** Lua: the ids in `taken` run now, under this claim. */
const hold = `
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
${hold}`;

/**
 * Lua: marks the jobs as active whose ids are the keys from number `firstId` on. `result` is that of `startScript`.
 * `isSkipped`: Lua that is true if the claim does not take a due job. `skippedAs`: Lua for its number in the result.
 */
const startFrom = (firstId: string, isSkipped = "false", skippedAs = "0") => `
local suffix = ',"attempts":1,"started":' .. string.format('%.0f', now) .. ',"worker_id":' .. ARGV[3]
  .. ',"touched":' .. string.format('%.0f', now) .. ',"status":"active"}'
local sub, find = string.sub, string.find
local result = {string.format('%.0f', now)}
local maxBytes, maxTotal = tonumber(ARGV[4]), tonumber(ARGV[5])
-- A few documents at a time, or one if they are large.
local first, step, total, left = ${firstId}, 1, 0, nil
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
    elseif due[i - first + 1] == '0' and ${isSkipped} then
      fresh = ${skippedAs}
    else
      local isLarge = #document > maxBytes
      text = isLarge and sub(document, 1, 1) or document
      local cut
      if sub(document, -19) == ',"status":"queued"}' then cut = 20
      elseif sub(document, -21) == ', "status": "queued"}' then cut = 22 end
      -- An id may be in the queue although its job is not due yet: see the list of due jobs above, and a worker that
      -- was paused between the two scripts may find that the job has run and was stored again.
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

const start = startFrom("5");

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
 * Does what `startScript` does while tasks are paused. Jobs of these tasks are put aside; they have the number 2 in the
 * result. If there are more other jobs than are wanted, the rest goes back to the front of the queue, with the number
 * 3.
 *
 * KEYS: incomplete, queued, active, claims, tasks with jobs that were put aside, then for each paused task the set of
 * its jobs that were put aside, then ids. ARGV: token, maximum number of jobs, worker id as JSON, maximum bytes of a
 * document, maximum bytes of all documents, then the names of the paused tasks.
 */
export const startUnpausedScript = script(`
${readClock}
local incomplete, queued, active, claims, parkedTasks = unpack(KEYS, 1, 5)
local token, call, wanted = ARGV[1], redis.call, tonumber(ARGV[2])
call('HDEL', claims, '')
local parkedOf = {}
for i = 6, #ARGV do parkedOf[ARGV[i]] = KEYS[i] end
local skipped, back, kept, skippedAs = {}, {}, 0, 0
local function isSkipped(id, document)
  -- The engine and Python write the function first, unless another program has written the document.
  local name = string.match(document, '^{"function":%s?"([^"\\\\]*)"')
  if not name then
    local isJson, job = pcall(cjson.decode, document)
    if isJson and type(job) == 'table' then name = job['function'] end
  end
  if type(name) == 'string' and parkedOf[name] then
    local tail = string.sub(document, -1000)
    local due = tonumber(string.match(tail, '.*"scheduled":%s?(%d+)') or 0)
    local score = due > 0 and due * 1000 or tonumber(string.match(tail, '.*"queued":%s?(%d+)') or now)
    call('ZADD', parkedOf[name], score, id)
    call('SADD', parkedTasks, name)
    skipped[id] = true
    skippedAs = 2
    return true
  end
  kept = kept + 1
  if kept <= wanted then return false end
  skipped[id] = true
  back[#back + 1] = id
  skippedAs = 3
  return true
end
${startFrom("1 + #ARGV", "isSkipped(id, document)", "skippedAs")}
-- The ids are at the end of the list, the last one last: from there, each is found at once.
for i = #KEYS, 1 + #ARGV, -1 do
  local id = KEYS[i]
  if skipped[id] then
    call('LREM', active, -1, id)
    if call('HGET', claims, id) == token then call('HDEL', claims, id) end
  end
end
for i = #back, 1, -1 do call('LPUSH', queued, back[i]) end
return result
`);

/**
 * Moves jobs that were put aside into `active`, in their order. Returns their ids.
 *
 * KEYS: active, claims, tasks with jobs that were put aside, the set of the jobs of one task. ARGV: token, maximum
 * number of jobs, name of the task.
 */
export const takeParkedScript = script(`
local active, claims, parkedTasks, parked = unpack(KEYS, 1, 4)
local token, limit, call = ARGV[1], tonumber(ARGV[2]), redis.call
call('HDEL', claims, '')
local popped = call('ZPOPMIN', parked, limit)
local taken = {}
for i = 1, #popped, 2 do taken[#taken + 1] = popped[i] end
${hold}
if call('EXISTS', parked) == 0 then call('SREM', parkedTasks, ARGV[3]) end
return taken
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
