/** Parses the query of a queue's job list: `?status=failed,aborted&offset=25&limit=25`. */
import type { JobCounts, JobFilter } from "../broker.js";
import { HttpProblem } from "./problem.js";

type JobState = keyof JobCounts;

/** `queued` jobs are due and `scheduled` jobs are not due yet. Both are stored with the status `queued`. */
const jobStates = [
  "queued",
  "scheduled",
  "active",
  "aborting",
  "complete",
  "failed",
  "aborted",
] as const satisfies readonly JobState[];

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
  return {
    ...(names.length > 0 && asStored(names.map(parseState))),
    offset: wholeNumber(query.get("offset"), "offset", 0, 0, Number.MAX_SAFE_INTEGER),
    limit: wholeNumber(query.get("limit"), "limit", maxLimit, 1, maxLimit),
  };
}

function asStored(states: readonly JobState[]): Pick<JobFilter, "statuses" | "due"> {
  const due = states.includes("queued");
  return {
    statuses: states.map((state) => (state === "scheduled" ? "queued" : state)),
    ...(due !== states.includes("scheduled") && { due }),
  };
}

function parseState(name: string): JobState {
  const state = jobStates.find((known) => known === name);
  if (!state) throw new HttpProblem(400, `status must be one of ${jobStates.join(", ")}, got "${name}"`);
  return state;
}

function wholeNumber(text: string | null, name: string, fallback: number, min: number, max: number): number {
  if (text === null) return fallback;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new HttpProblem(400, `${name} must be a whole number from ${min} to ${max}, got "${text}"`);
}
