// Reads a job's document: default values, state, and possible actions.

/** @typedef {import("./api.js").JobDocument} JobDocument */

/**
 * Returns the job with all members. SAQ's document leaves out members that have their default value.
 *
 * @param {JobDocument} document
 */
export function withDefaults(document) {
  return {
    kwargs: null,
    result: null,
    error: null,
    timeout: 10,
    heartbeat: 0,
    retries: 1,
    ttl: 600,
    attempts: 0,
    progress: 0,
    priority: 0,
    group_key: null,
    worker_id: null,
    meta: {},
    scheduled: 0,
    queued: 0,
    started: 0,
    completed: 0,
    touched: 0,
    history: [],
    ...document,
  };
}

/**
 * Returns the state that the UI shows: the job's status, or `scheduled` for a queued job that is not due yet.
 *
 * @param {JobDocument} job
 */
export function stateOf({ status, scheduled = 0 }) {
  return status === "queued" && scheduled * 1000 > Date.now() ? "scheduled" : status;
}

/** @param {JobDocument} job */
export const canRetry = ({ status }) => status === "complete" || status === "failed" || status === "aborted";

/** @param {JobDocument} job */
export const canAbort = ({ status }) => status === "queued" || status === "active";
