/**
 * Lua: `takenBy` returns 'key_alive' or 'other_queue' if a key is taken although its id waits in no list; nil if it is
 * free. `name` is the name of the queue as JSON.
 *
 * A job that is being aborted is in no list, but has a claim. If a Python worker ends such a job, it leaves the claim
 * behind. The keys of the jobs of two queues are the same text if one queue is called `a` and the other one `a:b`.
 */
export const takenBy = `
local ended = {complete = true, failed = true, aborted = true}
local function takenBy(id, abort, claims, name)
  if redis.call('EXISTS', abort) == 1 then return 'key_alive' end
  local document = redis.call('GET', id)
  if redis.call('HEXISTS', claims, id) == 1 then
    if document then
      local readable, job = pcall(cjson.decode, document)
      if not readable or type(job) ~= 'table' or not ended[job.status] then return 'key_alive' end
    end
    redis.call('HDEL', claims, id)
  end
  if document and not string.find(document, '"queue":' .. name, 1, true)
    and not string.find(document, '"queue": ' .. name, 1, true) then
    -- Python escapes what is not ASCII.
    local readable, job = pcall(cjson.decode, document)
    local other = readable and type(job) == 'table' and job.queue
    if type(other) == 'string' and other ~= cjson.decode('[' .. name .. ']')[1] then return 'other_queue' end
  end
end
`;
