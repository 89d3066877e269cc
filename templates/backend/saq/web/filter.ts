/** The query of a queue's job list: `?status=failed,aborted&offset=25&limit=25` (S-69). */
import type { JobCounts, JobFilter } from "../broker.js";
import { HttpProblem } from "./problem.js";

type JobState = keyof JobCounts;

/** `queued` jobs are due, `scheduled` ones not yet; on the wire both are `queued`. */
const jobStates = [
  "queued",
  "scheduled",
  "active",
  "aborting",
  "complete",
  "failed",
  "aborted",
] as const satisfies readonly JobState[];

/** Most jobs in one answer. */
const maxLimit = 100;

/**
 * Read from the URL's own text, because what `req.query` holds depends on the application's settings. No `statuses`
 * when none was asked for: the unfinished ones.
 *
 * @throws HttpProblem 400 when a value is not allowed
 */
export function parseJobFilter(url: string): Partial<JobFilter> {
  const start = url.indexOf("?");
  const query = new URLSearchParams(start < 0 ? "" : url.slice(start + 1));
  const words = query.getAll("status").flatMap((text) => text.split(","));
  return {
    ...(words.length > 0 && asStored(words.map(parseState))),
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

function parseState(word: string): JobState {
  const state = jobStates.find((known) => known === word);
  if (!state) throw new HttpProblem(400, `status must be one of ${jobStates.join(", ")}, got "${word}"`);
  return state;
}

function wholeNumber(
  text: string | null,
  name: string,
  fallback: number,
  least: number,
  most: number,
): number {
  if (text === null) return fallback;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new HttpProblem(400, `${name} must be a whole number from ${least} to ${most}, got "${text}"`);
}
