// Calls the JSON API of the web UI.
import { apiUrl, states } from "./routes.js";
import { segment } from "./segment.js";

/**
 * @typedef {object} WorkerInfo
 * @property {{ complete?: number, failed?: number, retried?: number, aborted?: number, uptime?: number }} stats
 *   `uptime` is in ms
 */
/**
 * A failed attempt of a job. `time` is epoch milliseconds, `duration` milliseconds.
 *
 * @typedef {object} FailedAttempt
 * @property {number} time
 * @property {number} attempt
 * @property {string | null} workerId
 * @property {number} duration
 * @property {string} error
 */
/**
 * A job as it is stored (SAQ's document): members that have their default value are left out. Times are epoch
 * milliseconds, `scheduled` is epoch seconds. In the response for a single job, `kwargs` and `result` are JSON text,
 * and `history` has the last failed attempts, the oldest first.
 *
 * @typedef {object} JobDocument
 * @property {string} key
 * @property {string} function
 * @property {import("./routes.js").State} status
 * @property {unknown} [kwargs]
 * @property {unknown} [result]
 * @property {string} [error]
 * @property {number | null} [timeout]
 * @property {number} [heartbeat]
 * @property {number} [retries]
 * @property {number} [ttl]
 * @property {number} [attempts]
 * @property {number} [progress]
 * @property {number} [priority]
 * @property {string} [group_key]
 * @property {string} [worker_id]
 * @property {object} [meta]
 * @property {number} [scheduled]
 * @property {number} [queued]
 * @property {number} [started]
 * @property {number} [completed]
 * @property {number} [touched]
 * @property {FailedAttempt[]} [history]
 */
/**
 * What is paused: a task, a group, or, if both are null, the whole queue. Times are epoch milliseconds.
 *
 * @typedef {object} Pause
 * @property {string | null} task
 * @property {string | null} group
 * @property {number} since
 * @property {number | null} until null: until somebody resumes it
 * @property {string | null} by
 * @property {string | null} reason
 */
/**
 * @typedef {object} QueueInfo
 * @property {string} name
 * @property {Record<import("./routes.js").State, number>} counts
 * @property {Pause[]} paused
 * @property {Record<string, WorkerInfo>} workers
 * @property {JobDocument[]} jobs
 */

/** The API refused the request with an error 4xx. `status` is the HTTP status. */
export class ApiRefusal extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The API did not respond, or responded with an error that is not 4xx, or without JSON. */
class ApiUnreachable extends Error {}

const timeoutMs = 10_000;

/**
 * @param {string} path
 * @param {{ method?: "GET" | "POST", signal?: AbortSignal }} [options]
 */
async function request(path, { method = "GET", signal } = {}) {
  const limit = AbortSignal.timeout(timeoutMs);
  let response;
  try {
    response = await fetch(apiUrl(path), {
      method,
      headers: { Accept: "application/json", ...(method === "POST" ? { "X-SAQ-CSRF": "1" } : {}) },
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (error) {
    signal?.throwIfAborted();
    throw new ApiUnreachable(limit.aborted ? `no response within ${timeoutMs / 1000} s` : "no connection", {
      cause: error,
    });
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  if (response.status >= 400 && response.status < 500) {
    throw new ApiRefusal(response.status, body?.detail ?? `The API responded with status ${response.status}`);
  }
  throw new ApiUnreachable(`it responded with status ${response.status}`);
}

/**
 * @param {AbortSignal} signal
 * @returns {Promise<QueueInfo[]>}
 */
export async function fetchQueues(signal) {
  return (await request("/queues", { signal })).queues;
}

export const pageSize = 25;

/**
 * @param {string} queue
 * @param {{ state: import("./routes.js").State | null, page: number }} list
 * @param {AbortSignal} signal
 * @returns {Promise<QueueInfo>}
 */
export async function fetchQueue(queue, { state, page }, signal) {
  const query = `status=${state ?? states.join(",")}&offset=${(page - 1) * pageSize}&limit=${pageSize}`;
  return (await request(`/queues/${segment(queue)}?${query}`, { signal })).queue;
}

/**
 * @param {string} queue
 * @param {string} key
 */
const jobPath = (queue, key) => `/queues/${segment(queue)}/jobs/${segment(key)}`;

/**
 * @param {string} queue
 * @param {string} key
 * @param {AbortSignal} signal
 * @returns {Promise<JobDocument>}
 */
export async function fetchJob(queue, key, signal) {
  return (await request(jobPath(queue, key), { signal })).job;
}

/**
 * @param {string} queue
 * @param {string} key
 * @param {"retry" | "abort"} action
 */
export async function changeJob(queue, key, action) {
  await request(`${jobPath(queue, key)}/${action}`, { method: "POST" });
}
