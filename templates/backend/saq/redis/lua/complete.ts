import { readClock, script } from "./script.js";

/**
 * Completes jobs whose document still ends as their claim left it. Returns 1 for each job that was completed.
 *
 * KEYS: active, incomplete, claims, the set of complete jobs; then ids. ARGV: the number of claims; for each claim its
 * token, the end that it gave the documents, and how many bytes of this end are replaced; then for each job the number
 * of its claim, the replacement, the seconds to keep the document ('' = for ever, '-1' = not at all), and the channel
 * and the text of a notification with a line break between them ('' = none).
 */
export const completeScript = script(`
${readClock}
local active, incomplete, claims, complete = unpack(KEYS, 1, 4)
local call, sub = redis.call, string.sub
local first = 1 + 3 * tonumber(ARGV[1])
local done, ids, kept = {}, {}, {}
local owners, documents, offset
for i = 1, #KEYS - 4 do
  if i % 25 == 1 then
    -- A few documents at a time: they may be large.
    offset = i - 1
    local last = math.min(i + 28, #KEYS)
    owners = call('HMGET', claims, unpack(KEYS, i + 4, last))
    documents = call('MGET', unpack(KEYS, i + 4, last))
  end
  local id, a = KEYS[4 + i], first + 4 * (i - 1)
  local claim = 3 * tonumber(ARGV[a + 1])
  local suffix, keep, notification = ARGV[claim], ARGV[a + 3], ARGV[a + 4]
  local document = owners[i - offset] == ARGV[claim - 1] and documents[i - offset]
  if document and sub(document, -#suffix) == suffix then
    -- First a write that needs no memory: after it, Redis lets the script write although its memory is full.
    call('LREM', active, 1, id)
    if keep == '-1' then
      call('DEL', id)
    else
      local finished = sub(document, 1, #document - tonumber(ARGV[claim + 1])) .. ARGV[a + 2]
      local expires = '+inf'
      if keep == '' then
        call('SET', id, finished)
      else
        call('SET', id, finished, 'EX', keep)
        expires = string.format('%.0f', now + keep * 1000)
      end
      local size = #kept
      kept[size + 1], kept[size + 2] = expires, id
    end
    call('PUBLISH', id, 'complete') -- for Python
    if notification ~= '' then
      local lineBreak = string.find(notification, '\\n', 1, true)
      call('PUBLISH', sub(notification, 1, lineBreak - 1), sub(notification, lineBreak + 1))
    end
    ids[#ids + 1] = id
    done[i] = 1
  else
    done[i] = 0
  end
end
if #ids > 0 then
  call('ZREM', incomplete, unpack(ids))
  call('HDEL', claims, unpack(ids))
end
if #kept > 0 then call('ZADD', complete, unpack(kept)) end
return done
`);
