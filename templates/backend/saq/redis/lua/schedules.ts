import { readClock, script } from "./script.js";
import { takenBy } from "./taken-key.js";

/**
 * Registers an entry. A changed definition starts now: ticks that it would have had earlier do not count as missed.
 *
 * KEYS: definitions, ticks. ARGV: name, definition, its part that determines the ticks.
 */
export const registerScript = script(`
${readClock}
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old ~= ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
if not old or string.sub(old, 1, #ARGV[3]) ~= ARGV[3] then
  redis.call('HSET', KEYS[2], ARGV[1], seconds)
end
return 0
`);

/**
 * Pauses or resumes an entry. Ticks that pass while it is paused do not count as missed.
 *
 * KEYS: definitions, ticks, paused. ARGV: name, definition, '1' to pause or '0' to resume.
 */
export const pauseScript = script(`
${readClock}
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
local changed
if ARGV[3] == '1' then changed = redis.call('HSETNX', KEYS[3], ARGV[1], '1')
else changed = redis.call('HDEL', KEYS[3], ARGV[1]) end
if changed == 1 or redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  redis.call('HSET', KEYS[2], ARGV[1], seconds)
end
return changed
`);

/**
 * Stores the job of a tick and records that it was stored, so that no crash separates the two. Returns 'stored', 'done',
 * 'paused', 'key_alive' or 'other_queue'. Only workers with the definition that was registered last use the record.
 *
 * KEYS: definitions, ticks, paused, last runs, incomplete, queued, claims, the three sets of finished jobs, the job's id
 * and its abort key. ARGV: name, the part of the definition that determines the ticks, document, score, due time (epoch
 * s), the last tick that passed, the last run as JSON ('' = none), the name of the queue as JSON.
 */
export const tickScript = script(`
${readClock}
${takenBy}
local definitions, ticks, paused, lastRuns, incomplete, queued, claims = unpack(KEYS, 1, 7)
local id, abort = KEYS[11], KEYS[12]
local name, kind, document, score = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local due, seen, lastRun = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
if redis.call('HEXISTS', paused, name) == 1 then return 'paused' end
local definition = redis.call('HGET', definitions, name)
local latest = definition and string.sub(definition, 1, #kind) == kind
local tick = tonumber(redis.call('HGET', ticks, name) or '0')
local answer
if latest and (tick == due or (tick > due and due <= seconds)) then
  answer = 'done'
else
  answer = takenBy(id, abort, claims, ARGV[8])
  if not answer and redis.call('ZADD', incomplete, 'NX', score, id) == 0 then answer = 'key_alive' end
end
if not answer then
  redis.call('SET', id, document)
  for k = 8, 10 do redis.call('ZREM', KEYS[k], id) end
  if score == '0' then redis.call('RPUSH', queued, id) end
  answer = 'stored'
end
if latest then
  local last = math.max(tick, seen, answer == 'stored' and due or 0)
  if last > tick then redis.call('HSET', ticks, name, string.format('%.0f', last)) end
  if lastRun ~= '' then redis.call('HSET', lastRuns, name, lastRun) end
end
return answer
`);
