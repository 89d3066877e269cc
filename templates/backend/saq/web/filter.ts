/**
 * Parses the query of a queue's job list: `?status=failed,aborted&task=sendMail&error=ECONNREFUSED&offset=25&limit=25`.
 * It may also have `key_prefix`, `enqueued_after` and `enqueued_before`.
 */
import type { JobFilter } from "../broker.js";
import { type JobState, jobStates, selectionOfStates } from "../core/job-selection.js";
import { HttpProblem } from "./problem.js";

/** Maximum number of jobs in one response. */
const maxLimit = 100;

/**
 * Parses the query of a URL. It does not use `req.query`, whose contents depend on the application's settings. The
 * result has no `statuses` if the query names none; the caller then lists the unfinished jobs.
 *
 * @throws HttpProblem 400 if a value is not allowed
 */
export function parseJobFilter(url: string): Partial<JobFilter> {
  const start = url.indexOf("?");
  const query = new URLSearchParams(start < 0 ? "" : url.slice(start + 1));
  const names = query.getAll("status").flatMap((text) => text.split(","));
  const task = query.get("task");
  const keyPrefix = query.get("key_prefix");
  const error = query.get("error");
  const enqueuedAfter = time(query.get("enqueued_after"), "enqueued_after");
  const enqueuedBefore = time(query.get("enqueued_before"), "enqueued_before");
  return {
    ...(names.length > 0 && selectionOfStates(names.map(parseState))),
    ...(task !== null && { task }),
    ...(keyPrefix !== null && { keyPrefix }),
    ...(error !== null && { error }),
    ...(enqueuedAfter !== null && { enqueuedAfter }),
    ...(enqueuedBefore !== null && { enqueuedBefore }),
    offset: wholeNumber(query.get("offset"), "offset", 0, 0, Number.MAX_SAFE_INTEGER),
    limit: wholeNumber(query.get("limit"), "limit", maxLimit, 1, maxLimit),
  };
}

function parseState(name: string): JobState {
  const state = jobStates.find((known) => known === name);
  if (!state) throw new HttpProblem(400, `status must be one of ${jobStates.join(", ")}, got "${name}"`);
  return state;
}

/** Returns epoch ms. */
function time(text: string | null, name: string): number | null {
  if (text === null) return null;
  const ms = Date.parse(text);
  if (Number.isFinite(ms)) return ms;
  throw new HttpProblem(400, `${name} must be a time such as 2026-11-19T08:30:00Z, got "${text}"`);
}

function wholeNumber(text: string | null, name: string, fallback: number, min: number, max: number): number {
  if (text === null) return fallback;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new HttpProblem(400, `${name} must be a whole number from ${min} to ${max}, got "${text}"`);
}
