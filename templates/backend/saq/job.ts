import { InvalidJobError } from "./errors.js";

/** The status texts of the wire (V-2). `new` exists only in memory. */
export const statuses = ["new", "queued", "active", "aborting", "aborted", "failed", "complete"] as const;
export type Status = (typeof statuses)[number];

/** Statuses that never change by themselves again (V-3). */
const terminalStatuses = ["complete", "failed", "aborted"] as const satisfies readonly Status[];
export type TerminalStatus = (typeof terminalStatuses)[number];

export const isTerminal = (status: Status): status is TerminalStatus =>
  (terminalStatuses as readonly Status[]).includes(status);

/** Column text to status; `deferred` is an old word of SAQ's SQL for `queued` (V-2). Unknown text gives null. */
export function parseStatus(text: string): Status | null {
  if (text === "deferred") return "queued";
  return statuses.find((status) => status === text) ?? null;
}

/** A job as it is stored (J-1). Times ending in no unit are epoch milliseconds, except `scheduled` (epoch seconds). */
export interface JobFields {
  /** Task name on the wire. */
  function: string;
  kwargs: Record<string, unknown> | null;
  queueName: string;
  key: string;
  /** Run limit, s; 0 or null = none. */
  timeout: number | null;
  /** Longest silence between two signs of life, s; 0 = off. */
  heartbeat: number;
  /** Attempts allowed in all; 1 = run once. */
  retries: number;
  /** How long a finished job is kept, s; 0 = for ever, negative = not at all (J-16). */
  ttl: number;
  /** Base delay before a retry, s. */
  retryDelay: number;
  /** true = exponential, a number = exponential with that cap in s (J-14). */
  retryBackoff: boolean | number;
  /** Not before, epoch s; 0 = at once. */
  scheduled: number;
  /** 0..1. */
  progress: number;
  /** Attempts started. */
  attempts: number;
  completed: number;
  queued: number;
  started: number;
  touched: number;
  result: unknown;
  error: string | null;
  status: Status;
  /** -32768..32767, smaller runs earlier. */
  priority: number;
  /** At most one job of a group runs at a time. */
  groupKey: string | null;
  meta: Record<string, unknown>;
  workerId: string | null;
}

/** Defaults of J-1; a document leaves out every field that equals its default (J-4). */
export const jobDefaults = {
  kwargs: null,
  timeout: 10,
  heartbeat: 0,
  retries: 1,
  ttl: 600,
  retryDelay: 0,
  retryBackoff: false,
  scheduled: 0,
  progress: 0,
  attempts: 0,
  completed: 0,
  queued: 0,
  started: 0,
  touched: 0,
  result: null,
  error: null,
  status: "new",
  priority: 0,
  groupKey: null,
  workerId: null,
} as const satisfies Partial<JobFields>;

/** What a caller may choose about one job. Durations are seconds. */
export interface JobOptions {
  timeout?: number | null;
  heartbeat?: number;
  retries?: number;
  ttl?: number;
  retryDelay?: number;
  retryBackoff?: boolean | number;
}

export const jobOptionNames = [
  "timeout",
  "heartbeat",
  "retries",
  "ttl",
  "retryDelay",
  "retryBackoff",
] as const satisfies readonly (keyof JobOptions)[];

/** Another attempt is left (J-12). */
export const isRetryable = (job: Pick<JobFields, "retries" | "attempts">): boolean =>
  job.retries > job.attempts;

/**
 * Seconds to wait before the next attempt (J-13, J-14): exactly `retryDelay` without backoff; with backoff a random
 * part of `retryDelay * 2^(attempts-1)`, capped when `retryBackoff` is a number. `random` is uniform in [0, 1).
 */
export function retryDelaySeconds(
  job: Pick<JobFields, "retryDelay" | "retryBackoff" | "attempts">,
  random: () => number = Math.random,
): number {
  if (job.retryBackoff === false || job.retryBackoff === 0) return job.retryDelay;
  // Beyond 2^1023 the power is Infinity; times a delay of 0 that would be NaN, a time that no database takes.
  const exponent = Math.min(Math.max(job.attempts - 1, 0), 1000);
  const grown = Math.min(job.retryDelay * 2 ** exponent, Number.MAX_SAFE_INTEGER);
  const cap = typeof job.retryBackoff === "number" ? job.retryBackoff : Number.POSITIVE_INFINITY;
  return Math.min(cap, grown) * random();
}

/**
 * Stuck (J-11): it runs longer than its timeout, or has been silent longer than its heartbeat. `graceSeconds` is
 * what a living worker is allowed on top to end the job itself. Times are epoch ms; `setForwardSince` tells how far the
 * clock was set forward after such a time, ms, which is not time that the job has run.
 */
export function isStuck(
  job: Pick<JobFields, "status" | "timeout" | "heartbeat" | "started" | "touched">,
  nowMs: number,
  graceSeconds = 0,
  setForwardSince: (epochMs: number) => number = () => 0,
): boolean {
  if (job.status !== "active" && job.status !== "aborting") return false;
  const over = (since: number, limit: number | null) =>
    Boolean(limit) && (nowMs - since - setForwardSince(since)) / 1000 > (limit ?? 0) + graceSeconds;
  return over(job.started, job.timeout) || over(job.touched, job.heartbeat);
}

/** A time or a wait, for `scheduled`: epoch seconds, a Date, or `inSeconds(n)`. */
export type Due = number | Date | Delay;

/** A wait from the moment of the enqueue by the database's clock. Made by `inSeconds`. */
export interface Delay {
  readonly delaySeconds: number;
}

/** `{ scheduled: inSeconds(30) }`: not before 30 s from now. Fractions are kept and the due second is rounded up. */
export function inSeconds(seconds: number): Delay {
  if (!Number.isFinite(seconds) || seconds < 0) {
    throw new InvalidJobError(`inSeconds takes a finite number of seconds >= 0, got ${seconds}`);
  }
  return { delaySeconds: seconds };
}

/**
 * Epoch seconds of a due time, rounded up so that a job never runs early (5.2); 0 = at once.
 * `nowMs` is the database's clock.
 */
export function dueSecond(due: Due | undefined, nowMs: number): number {
  if (due === undefined) return 0;
  if (due instanceof Date) return checkedSecond(due.getTime() / 1000, due);
  if (typeof due === "number") return checkedSecond(due, due);
  // What comes from JavaScript may be anything.
  const delay: unknown = (due as typeof due | null)?.delaySeconds;
  if (typeof delay !== "number") return checkedSecond(Number.NaN, JSON.stringify(due));
  if (delay === 0) return 0;
  return checkedSecond(nowMs / 1000 + delay, `inSeconds(${delay})`);
}

/** The due second of a document as its row's column can hold it: others may have written anything. */
export const columnSecond = ({ scheduled }: Pick<JobFields, "scheduled">): number =>
  Math.min(Math.max(Math.floor(scheduled), 0), latestSecond);

/** The year 5138: whoever passes a later time has passed milliseconds. */
export const latestSecond = 1e11;

function checkedSecond(seconds: number, given: unknown): number {
  if (!Number.isFinite(seconds) || seconds < 0 || seconds > latestSecond) {
    const hint = seconds > latestSecond ? " (milliseconds? divide by 1000)" : "";
    throw new InvalidJobError(
      `scheduled must be epoch seconds, a Date or inSeconds(n), got ${String(given)}${hint}`,
    );
  }
  return Math.ceil(seconds);
}
