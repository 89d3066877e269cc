import { readClock, script } from "./script.js";

/**
 * Completes jobs whose document still ends as their claim left it. Returns 1 for each job that was completed.
 *
 * KEYS: active, incomplete, claims, the set of complete jobs; then ids. ARGV: for each job the token, the end of the
 * document, how many bytes of this end are replaced, their replacement, the seconds to keep the document ('' = for ever,
 * '-1' = not at all), and the channel and the text of a notification ('' = none).
 */
export const completeScript = script(`
${readClock}
local active, incomplete, claims, complete = unpack(KEYS, 1, 4)
local done = {}
for i = 1, #KEYS - 4 do
  local id, a = KEYS[4 + i], 7 * (i - 1)
  local token, suffix, cut, replacement, keep, channel, text = unpack(ARGV, a + 1, a + 7)
  local document = redis.call('HGET', claims, id) == token and redis.call('GET', id)
  if document and string.sub(document, -#suffix) == suffix then
    if keep == '-1' then
      redis.call('DEL', id)
    else
      local finished = string.sub(document, 1, #document - tonumber(cut)) .. replacement
      if keep == '' then
        redis.call('SET', id, finished)
        redis.call('ZADD', complete, '+inf', id)
      else
        redis.call('SET', id, finished, 'EX', keep)
        redis.call('ZADD', complete, string.format('%.0f', now + keep * 1000), id)
      end
    end
    redis.call('LREM', active, 1, id)
    redis.call('ZREM', incomplete, id)
    redis.call('HDEL', claims, id)
    redis.call('PUBLISH', id, 'complete')
    if channel ~= '' then redis.call('PUBLISH', channel, text) end
    done[i] = 1
  else
    done[i] = 0
  end
end
return done
`);
