/** Changes of single jobs: a script reads the jobs, this process decides, and a second script writes the decision. */
import { readClock, script } from "./script.js";

/**
 * Reads documents. Returns for each id the document, '' if there is none, or the number of its bytes if it is too
 * large.
 *
 * KEYS: ids. ARGV: maximum bytes of a document, maximum bytes of all documents except the first one.
 */
export const fetchScript = script(`
local max, maxTotal, total = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local result = {}
for i, id in ipairs(KEYS) do
  local bytes = redis.call('STRLEN', id)
  if bytes > max or (total > 0 and total + bytes > maxTotal) then
    result[i] = bytes
  else
    total = total + bytes
    result[i] = bytes == 0 and '' or redis.call('GET', id)
  end
end
return result
`);

/**
 * Reads jobs. Returns the time, and for each job its document ('' = none, a number = the bytes of a document that is
 * too large), the hash of the document, the token of its claim ('' = none) and its score ('' = the job neither waits
 * nor runs). The result ends before a document with which all of them would be too many bytes.
 *
 * KEYS: claims, incomplete, then ids. ARGV: maximum bytes of a document, maximum bytes of all documents except the
 * first one.
 */
export const readScript = script(`
${readClock}
local result = {string.format('%.0f', now)}
local total, maxTotal = 0, tonumber(ARGV[2])
for i = 3, #KEYS do
  local id = KEYS[i]
  local document = redis.call('GET', id) or ''
  total = total + #document
  if total > maxTotal and i > 3 then break end
  local at = #result
  result[at + 1] = #document > tonumber(ARGV[1]) and #document or document
  result[at + 2] = document ~= '' and redis.sha1hex(document) or ''
  result[at + 3] = redis.call('HGET', KEYS[1], id) or ''
  result[at + 4] = redis.call('ZSCORE', KEYS[2], id) or ''
end
return result
`);

/**
 * Writes changes of jobs that nobody else has changed since they were read. Returns 1 for each change that was written,
 * 0 for a job that has changed meanwhile.
 *
 * KEYS: active, incomplete, claims, queued, the sets of complete, failed and aborted jobs; then for each job its id and
 * its abort key. ARGV: for each job
 *  1 the hash of the document that was read    2 the token that was read ('' = none)
 *  3 the new document ('' = as it is)          4 the status before
 *  5 the status after                          6 the new token ('' = none)
 *  7 the score of a job that waits             8 'front' or 'back' of the queue
 *  9 the seconds to keep the document ('' = for ever, '-1' = delete it, '=' = as it is)
 * 10 the channel of a notification ('' = none) 11 its text
 *
 * To find an id in the list of due jobs takes 2 ms if the list has 200,000 ids. The ids of many jobs are therefore
 * removed together: where one is found, the ids before it are compared too. This needs the jobs in the order of the
 * list, the newest first.
 */
export const changeScript = script(`
${readClock}
local active, incomplete, claims, queued = unpack(KEYS, 1, 4)
local sets = {complete = KEYS[5], failed = KEYS[6], aborted = KEYS[7]}
local written, left = {}, {}
-- First a write that needs no memory: after it, Redis lets the script write although its memory is full.
redis.call('HDEL', claims, '')
for i = 1, (#KEYS - 7) / 2 do
  local id, abort, a = KEYS[6 + 2 * i], KEYS[7 + 2 * i], 11 * (i - 1)
  local sha, token, document, before, after, newToken, score, position, keep, channel, text =
    unpack(ARGV, a + 1, a + 11)
  local present = redis.call('GET', id)
  if not present or redis.sha1hex(present) ~= sha or (redis.call('HGET', claims, id) or '') ~= token then
    written[i] = 0
  else
    local kept = document ~= '' and document or present
    if keep == '-1' then redis.call('DEL', id)
    elseif keep == '=' then
      if document ~= '' then redis.call('SET', id, kept, 'KEEPTTL') end
    elseif keep == '' then redis.call('SET', id, kept)
    else redis.call('SET', id, kept, 'EX', keep) end

    if before ~= after or keep == '-1' then
      if sets[before] then redis.call('ZREM', sets[before], id) end
      if before == 'queued' and after ~= 'active' and redis.call('ZSCORE', incomplete, id) == '0' then
        left[#left + 1] = id
      end
      if after ~= 'active' then redis.call('LREM', active, 1, id) end
      if after == 'queued' then
        redis.call('ZADD', incomplete, score, id)
        if score == '0' then redis.call(position == 'front' and 'LPUSH' or 'RPUSH', queued, id) end
      elseif after == 'active' then
        redis.call('ZADD', incomplete, 0, id)
      else
        redis.call('ZREM', incomplete, id)
      end
      if after == 'aborting' then redis.call('SETEX', abort, 5, 'aborted') else redis.call('DEL', abort) end
    elseif after == 'queued' and score ~= '' then
      local old = redis.call('ZSCORE', incomplete, id)
      redis.call('ZADD', incomplete, score, id)
      if score == '0' and old ~= '0' then redis.call('RPUSH', queued, id) end
      if score ~= '0' and old == '0' then redis.call('LREM', queued, 0, id) end
    end
    if sets[after] and keep ~= '-1' and keep ~= '=' then
      redis.call('ZADD', sets[after], keep == '' and '+inf' or string.format('%.0f', now + keep * 1000), id)
    end
    if newToken == '' then redis.call('HDEL', claims, id) else redis.call('HSET', claims, id, newToken) end
    redis.call('PUBLISH', id, after) -- for Python
    if channel ~= '' then redis.call('PUBLISH', channel, text) end
    written[i] = 1
  end
end
if #left == 1 then
  redis.call('LREM', queued, 0, left[1])
elseif #left > 1 then
  local isLeft, isFound, marked = {}, {}, 0
  for _, id in ipairs(left) do isLeft[id] = true end
  local function mark(first, last)
    for i, other in ipairs(redis.call('LRANGE', queued, first, last)) do
      if isLeft[other] then
        redis.call('LSET', queued, first + i - 1, '')
        isFound[other] = true
        marked = marked + 1
      end
    end
  end
  for _, id in ipairs(left) do
    local last = not isFound[id] and redis.call('LPOS', queued, id, 'RANK', -1)
    if last then mark(math.max(last - 499, 0), last) end
  end
  -- Python may push an id twice. Then the lists have more ids than jobs are due and run, and all of it is read.
  local count = redis.call('LLEN', queued)
  if count - marked + redis.call('LLEN', active) > redis.call('ZCOUNT', incomplete, 0, 0) then
    for first = 0, count - 1, 1000 do mark(first, first + 999) end
  end
  if marked > 0 then redis.call('LREM', queued, -marked, '') end
end
return written
`);
