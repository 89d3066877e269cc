import { InvalidJobError } from "../errors.js";

/** The status texts of the wire format. `new` exists only in memory. */
export const statuses = ["new", "queued", "active", "aborting", "aborted", "failed", "complete"] as const;
/**
 * The state of a job. `new`: not stored yet; `queued`: waits, due or not; `active`: runs; `aborting`: runs and must
 * end. `aborted`, `failed` and `complete` jobs are finished.
 */
export type Status = (typeof statuses)[number];

/** Statuses that never change by themselves again. */
const terminalStatuses = ["complete", "failed", "aborted"] as const satisfies readonly Status[];
export type TerminalStatus = (typeof terminalStatuses)[number];

export const isTerminal = (status: Status): status is TerminalStatus =>
  (terminalStatuses as readonly Status[]).includes(status);

/** Returns the status for a column text, or null for an unknown text. `deferred` is SAQ's old SQL word for `queued`. */
export function parseStatus(text: string): Status | null {
  if (text === "deferred") return "queued";
  return statuses.find((status) => status === text) ?? null;
}

/** A job as it is stored. Times without a unit in their comment are epoch ms. */
export interface JobFields {
  /** Task name in the wire format. */
  function: string;
  /** The payload; null if there is none. */
  kwargs: Record<string, unknown> | null;
  /** Name of the queue. */
  queueName: string;
  /** Identity of the job, unique over all queues of one set of tables. */
  key: string;
  /** Maximum time of a run, s; 0 or null = no limit. */
  timeout: number | null;
  /** Maximum time between two heartbeats, s; 0 = off. */
  heartbeat: number;
  /** Maximum number of attempts in all; 1 = run once. */
  retries: number;
  /** How long a finished job is kept, s; 0 = for ever, negative = it is deleted at once. */
  ttl: number;
  /** Base delay before a retry, s. */
  retryDelay: number;
  /** true = exponential backoff; a number = exponential backoff with this maximum, s. */
  retryBackoff: boolean | number;
  /** The job does not run before this time, epoch s; 0 = at once. */
  scheduled: number;
  /** 0..1. */
  progress: number;
  /** Attempts that were started. */
  attempts: number;
  /** When the job ended, epoch ms; 0 = not yet. */
  completed: number;
  /** When the job was enqueued, epoch ms; 0 = not yet. */
  queued: number;
  /** When the current or last attempt started, epoch ms; 0 while the job waits. */
  started: number;
  /** When the job was last started, changed or sent a heartbeat, epoch ms; 0 = not yet. */
  touched: number;
  /** What the task returned, after JSON; null unless the job is complete. */
  result: unknown;
  /** Why the last attempt failed, or why the job was aborted or queued again; null if there is no reason. */
  error: string | null;
  status: Status;
  /** -32768..32767; jobs with a smaller number run earlier. */
  priority: number;
  /** At most one job of a group runs at a time, or `groupConcurrency` jobs if the queue sets that. */
  groupKey: string | null;
  /** The caller's own data. The engine keeps some members of its own here, for example `lost` and `schedule`. */
  meta: Record<string, unknown>;
  /** Id of the worker of the current or last attempt; null before the first attempt. */
  workerId: string | null;
}

/** Defaults of the fields. A document leaves out every field that equals its default. */
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

/**
 * Options of jobs. A queue sets them for all its jobs (`defaults`), a task for its own jobs, an enqueue for one job.
 * The options of a task override those of the queue, and the options of an enqueue override both.
 */
export interface JobOptions {
  /** Maximum time of a run, s; 0 and null = no limit. @defaultValue 10 */
  timeout?: number | null;
  /** A run that sends no heartbeat for this long is ended, s; 0 = off. @defaultValue 0 */
  heartbeat?: number;
  /** Maximum number of attempts in all; 1 = run once. @defaultValue 1 */
  retries?: number;
  /**
   * How long a finished job is kept, whole s; 0 = for ever, negative = it is deleted at once. Unless `ttl` is negative,
   * a failed job is kept for the queue's `failedTtl` at least.
   * @defaultValue 600
   */
  ttl?: number;
  /** Delay before a retry, s. @defaultValue 0 */
  retryDelay?: number;
  /**
   * True: `retryDelay` doubles with each attempt, and a random part of it is the delay. A number: the same, with this
   * maximum, s.
   * @defaultValue false
   */
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

/** True if another attempt is left. */
export const isRetryable = (job: Pick<JobFields, "retries" | "attempts">): boolean =>
  job.retries > job.attempts;

/**
 * Returns the seconds to wait before the next attempt. Without backoff: exactly `retryDelay`. With backoff: a random
 * part of `retryDelay * 2^(attempts-1)`, limited to `retryBackoff` if that is a number. `random` is uniform in [0, 1).
 */
export function retryDelaySeconds(
  job: Pick<JobFields, "retryDelay" | "retryBackoff" | "attempts">,
  random: () => number = Math.random,
): number {
  if (job.retryBackoff === false || job.retryBackoff === 0) return job.retryDelay;
  // 2^1024 is Infinity. Infinity times a delay of 0 is NaN, a time that no database accepts.
  const exponent = Math.min(Math.max(job.attempts - 1, 0), 1000);
  const delay = Math.min(job.retryDelay * 2 ** exponent, Number.MAX_SAFE_INTEGER);
  const maxDelay = typeof job.retryBackoff === "number" ? job.retryBackoff : Number.POSITIVE_INFINITY;
  return Math.min(maxDelay, delay) * random();
}

/**
 * True if the job is stuck: it runs longer than its timeout, or its last heartbeat is older than `heartbeat`.
 * `graceSeconds` is the extra time in which a living worker may end the job itself. `nowMs` is epoch ms.
 * `setForwardSince` returns by how much the clock was set forward after a given time, ms: the job did not run in that
 * time.
 */
export function isStuck(
  job: Pick<JobFields, "status" | "timeout" | "heartbeat" | "started" | "touched">,
  nowMs: number,
  graceSeconds = 0,
  setForwardSince: (epochMs: number) => number = () => 0,
): boolean {
  if (job.status !== "active" && job.status !== "aborting") return false;
  const exceeds = (since: number, limit: number | null) =>
    Boolean(limit) && (nowMs - since - setForwardSince(since)) / 1000 > (limit ?? 0) + graceSeconds;
  return exceeds(job.started, job.timeout) || exceeds(job.touched, job.heartbeat);
}

/** A time or a delay, for `scheduled`: epoch seconds, a Date, or `inSeconds(n)`. */
export type Due = number | Date | Delay;

/** A delay that starts with the enqueue, by the database's clock. Made by `inSeconds`. */
export interface Delay {
  /** s */
  readonly delaySeconds: number;
}

/**
 * Returns a delay for `scheduled`: the job does not run before that many seconds have passed. Fractions are kept; the
 * due second is rounded up.
 *
 * @throws InvalidJobError if `seconds` is negative or not finite
 * @example
 * await queue.enqueue("sendMail", { to }, { scheduled: inSeconds(30) });
 */
export function inSeconds(seconds: number): Delay {
  if (!Number.isFinite(seconds) || seconds < 0) {
    throw new InvalidJobError(`inSeconds takes a finite number of seconds >= 0, got ${seconds}`);
  }
  return { delaySeconds: seconds };
}

/**
 * Returns the due time in epoch seconds, rounded up so that a job never runs early; 0 = at once. `nowMs` is the
 * database's clock.
 *
 * @throws InvalidJobError if `due` is not a time
 */
export function dueSecond(due: Due | undefined, nowMs: number): number {
  if (due === undefined) return 0;
  if (due instanceof Date) return checkedSecond(due.getTime() / 1000, due);
  if (typeof due === "number") return checkedSecond(due, due);
  // Plain JavaScript may pass any value.
  const delay: unknown = (due as typeof due | null)?.delaySeconds;
  if (typeof delay !== "number") return checkedSecond(Number.NaN, JSON.stringify(due));
  if (delay === 0) return 0;
  return checkedSecond(nowMs / 1000 + delay, `inSeconds(${delay})`);
}

/** Returns the due second of a document as the row's column can hold it: other programs may have written any number. */
export const columnSecond = ({ scheduled }: Pick<JobFields, "scheduled">): number =>
  Math.min(Math.max(Math.floor(scheduled), 0), latestSecond);

/** The year 5138. A caller who passes a later time has passed milliseconds. */
export const latestSecond = 1e11;

function checkedSecond(seconds: number, value: unknown): number {
  if (!Number.isFinite(seconds) || seconds < 0 || seconds > latestSecond) {
    const hint = seconds > latestSecond ? " (milliseconds? divide by 1000)" : "";
    throw new InvalidJobError(
      `scheduled must be epoch seconds, a Date or inSeconds(n), got ${String(value)}${hint}`,
    );
  }
  return Math.ceil(seconds);
}
