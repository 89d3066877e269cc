import { script } from "./script.js";

/**
 * Returns a page of ids from the end of the list of due jobs or of a sorted set: how many ids come before the page,
 * then the ids, the last one of the list or set first. Other programs add and remove ids between two pages. Where the
 * page begins is therefore found by the last id that the previous pages have left there (`anchor`). If it is gone, the
 * pages begin again, so that no id is missed.
 *
 * KEYS: the list or set. ARGV: 'list'; 'set'; or 'future' for the set of unfinished jobs, of which only those that wait
 * for their time are returned (score > 0). Then how many ids came before the page when the anchor was read, the anchor
 * ('' = none), the maximum number of ids and, for 'future', the maximum score.
 */
export const pageScript = script(`
local key, kind, anchor = KEYS[1], ARGV[1], ARGV[3]
local before, count = tonumber(ARGV[2]), tonumber(ARGV[4])
local call = redis.call
local result = {}
if kind == 'list' then
  local size = call('LLEN', key)
  local place = anchor ~= '' and call('LPOS', key, anchor, 'RANK', -1)
  local found = place and size - place or 0
  if place and found < before then
    -- Ids before it have left, or this is another entry of the same id: Python may push an id twice.
    local second = call('LPOS', key, anchor, 'RANK', -1, 'COUNT', 2)[2]
    if second and math.abs(size - second - before) < before - found then found = size - second end
  end
  before = found
  local ids = call('LRANGE', key, -before - count, -before - 1)
  for i = #ids, 1, -1 do result[#result + 1] = ids[i] end
else
  local isFuture = kind == 'future'
  local rank = anchor ~= '' and (not isFuture or tonumber(call('ZSCORE', key, anchor) or '0') > 0)
    and call('ZREVRANK', key, anchor)
  if rank then before = rank + 1
  else before = isFuture and call('ZCOUNT', key, '(' .. ARGV[5], '+inf') or 0 end
  local found = call('ZREVRANGE', key, before, before + count - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    if isFuture and tonumber(found[i + 1]) <= 0 then break end
    result[#result + 1] = found[i]
  end
end
return {before, unpack(result)}
`);
