/**
 * Jobs as the commands print them: as JSON (docs/cli.schema.json describes it; scripts rely on it), and as text. Times
 * are ISO 8601 in UTC.
 */
import { attemptHistoryMember } from "../core/job-meta.js";
import { type JobState, stateOf } from "../core/job-selection.js";
import type { Job } from "../queue/job-handle.js";

/** One job of a list. */
export interface JobSummary {
  queue: string;
  key: string;
  task: string;
  state: JobState;
  attempts: number;
  retries: number;
  enqueued: string | null;
  /** When the job is or was due, if it had to wait for a time. */
  scheduled: string | null;
  started: string | null;
  completed: string | null;
  error: string | null;
}

/** One job with everything that is stored. */
export interface JobDetails extends JobSummary {
  payload: Record<string, unknown> | null;
  result: unknown;
  progress: number;
  timeout: number | null;
  heartbeat: number;
  ttl: number;
  retry_delay: number;
  retry_backoff: boolean | number;
  priority: number;
  group_key: string | null;
  worker_id: string | null;
  touched: string | null;
  /** Without the history of failed attempts. */
  meta: Record<string, unknown>;
  /** The last failed attempts, the oldest first. */
  history: JobAttempt[];
}

/** A failed attempt. */
export interface JobAttempt {
  ended: string | null;
  attempt: number;
  worker_id: string | null;
  /** From the start of the attempt to its end. */
  milliseconds: number;
  error: string;
}

/** `nowMs` is the database's clock, epoch ms. */
export const summaryOf = (job: Job, nowMs: number): JobSummary => ({
  queue: job.queueName,
  key: job.key,
  task: job.function,
  state: stateOf(job, nowMs),
  attempts: job.attempts,
  retries: job.retries,
  enqueued: time(job.queued),
  scheduled: time(job.scheduled * 1_000),
  started: time(job.started),
  completed: time(job.completed),
  error: job.error,
});

export const detailsOf = (job: Job, nowMs: number): JobDetails => ({
  ...summaryOf(job, nowMs),
  payload: job.kwargs,
  result: job.result,
  progress: job.progress,
  timeout: job.timeout,
  heartbeat: job.heartbeat,
  ttl: job.ttl,
  retry_delay: job.retryDelay,
  retry_backoff: job.retryBackoff,
  priority: job.priority,
  group_key: job.groupKey,
  worker_id: job.workerId,
  touched: time(job.touched),
  meta: Object.fromEntries(Object.entries(job.meta).filter(([name]) => name !== attemptHistoryMember)),
  history: job.history.map(({ time: ended, attempt, workerId, duration, error }) => ({
    ended: time(ended),
    attempt,
    worker_id: workerId,
    milliseconds: duration,
    error,
  })),
});

/** Returns null for 0, and for a number of another program that is no time. */
function time(ms: number): string | null {
  const date = new Date(ms);
  return ms === 0 || Number.isNaN(date.getTime()) ? null : date.toISOString();
}

/** Returns a text for one cell of a table: the first line, without control characters, and not too long. */
export function cell(text: string, maxLength = 60): string {
  const [line = ""] = text.split("\n", 1);
  const shown = plain(line);
  return shown.length > maxLength ? `${shown.slice(0, maxLength - 3)}...` : shown;
}

/** Replaces control characters except line breaks: a text from a job must not control the terminal. */
export const plain = (text: string): string => text.replaceAll(/[^\P{Cc}\n]/gu, " ");

export const printJson = (value: unknown): void => console.log(JSON.stringify(value, null, 2));

/** Returns "1 job", "2,000 jobs". */
export const jobCount = (count: number): string =>
  `${count.toLocaleString("en-US")} ${count === 1 ? "job" : "jobs"}`;
