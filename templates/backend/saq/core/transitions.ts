/**
 * What may happen to a job, as pure decisions about a row that the caller has locked. Brokers carry the decisions out;
 * this module knows nothing about storage. An illegal change is refused with a typed answer, and never looks like a
 * success.
 */
import type { Claim, ClaimedJob, RowChange, StoredJob } from "../broker.js";
import { PoisonDocumentError } from "../errors.js";
import {
  columnSecond,
  isRetryable,
  isStuck,
  isTerminal,
  type JobFields,
  type JobOptions,
  latestSecond,
  retryDelaySeconds,
  type TerminalStatus,
} from "./job.js";
import { decodeJob, encodeChange, type MetaMarks } from "./wire.js";

/**
 * Returns the seconds to keep a finished row; null = for ever, -1 = not at all. The number is whole and bounded: a
 * document may contain a number that no column accepts, and a job whose end cannot be written would run for ever.
 */
export function keepSeconds(ttl: number, status: TerminalStatus, failedTtl: number): number | null {
  if (ttl === 0) return null;
  if (ttl < 0) return -1;
  const whole = Math.min(Math.ceil(ttl), latestSecond);
  return status === "failed" ? Math.max(whole, failedTtl) : whole;
}

/** Returns the fields of a finished job. `nowMs` is epoch ms. */
export function finished(
  status: TerminalStatus,
  nowMs: number,
  outcome: { result?: unknown; error?: string | null },
) {
  const now = Math.round(nowMs);
  return {
    status,
    completed: now,
    touched: now,
    ...(status === "complete"
      ? { result: outcome.result ?? null, error: null, progress: 1 }
      : { result: null, error: outcome.error ?? null }),
  } satisfies Partial<JobFields>;
}

/** Returns the fields of a job that waits for its next attempt. `scheduled` is epoch seconds. */
export function requeued(nowMs: number, scheduled: number, error: string | null) {
  return {
    status: "queued",
    error,
    completed: 0,
    started: 0,
    progress: 0,
    scheduled,
    touched: Math.round(nowMs),
  } satisfies Partial<JobFields>;
}

/** Returns when the next attempt is due, epoch s. A delay is rounded up; without a delay the attempt is due now. */
export function retryDue(job: JobFields, nowMs: number, random?: () => number): number {
  const delay = retryDelaySeconds(job, random);
  return delay > 0 ? Math.min(Math.ceil(nowMs / 1000 + delay), latestSecond) : Math.floor(nowMs / 1000);
}

export type Decision<T> = { change: RowChange | null; answer: T };

export type AbortAnswer = "aborted" | "aborting" | "not_active";

/** Aborts a job: a waiting job ends at once, a running job is marked as aborting, a finished job is not changed. */
export function abortJob(
  row: StoredJob,
  error: string,
  nowMs: number,
  failedTtl: number,
): Decision<AbortAnswer> {
  if (isTerminal(row.status)) return { change: null, answer: "not_active" };
  if (row.status === "aborting") return { change: null, answer: "aborting" };
  const job = read(row);
  if (!job) return { change: setAside, answer: "aborted" };
  if (row.status === "active") {
    return {
      change: edit("aborting", { status: "aborting", error, touched: Math.round(nowMs) }),
      answer: "aborting",
    };
  }
  return {
    change: {
      ...edit("aborted", finished("aborted", nowMs, { error })),
      keep: keepSeconds(job.ttl, "aborted", failedTtl),
      // If the time stayed in the future, it would refuse the next enqueue of the key until the row expires. Cron
      // entries keep it: it prevents an aborted tick from being enqueued again.
      scheduled: row.key.startsWith("cron:") ? row.scheduled : 0,
    },
    answer: "aborted",
  };
}

export type RetryAnswer = "queued" | "not_finished" | "unreadable";

/**
 * Queues a finished job again by hand. With `resetAttempts`, its attempts and the engine's counts in `meta` are reset.
 */
export function retryJob(
  row: StoredJob,
  error: string,
  nowMs: number,
  resetAttempts: boolean,
): Decision<RetryAnswer> {
  if (!isTerminal(row.status)) return { change: null, answer: "not_finished" };
  const job = read(row);
  if (!job) return { change: null, answer: "unreadable" };
  const scheduled = Math.floor(nowMs / 1000);
  const fields = { ...requeued(nowMs, scheduled, error), result: null };
  return {
    change: {
      ...(resetAttempts ? edit("queued", { ...fields, attempts: 0 }, noCounts(job)) : edit("queued", fields)),
      scheduled,
      keep: null,
      ...(resetAttempts && "lost" in job.meta && { alone: false }),
    },
    answer: "queued",
  };
}

export type FinishAnswer = "finished" | "aborting" | "not_active";

/**
 * Ends a running job by hand. `token` is a new token: the worker that runs the job no longer owns it, and is notified.
 * After an abort was requested, only `aborted` is a legal end.
 */
export function finishJob(
  row: StoredJob,
  status: TerminalStatus,
  outcome: { result?: unknown; error?: string | null },
  { nowMs, failedTtl, token }: { nowMs: number; failedTtl: number; token: number },
): Decision<FinishAnswer> {
  if (row.status !== "active" && row.status !== "aborting") return { change: null, answer: "not_active" };
  if (row.status === "aborting" && status !== "aborted") return { change: null, answer: "aborting" };
  const job = read(row);
  const change = job
    ? {
        ...edit(status, finished(status, nowMs, { ...outcome, error: outcome.error ?? job.error })),
        keep: keepSeconds(job.ttl, status, failedTtl),
      }
    : setAside;
  return { change: { ...change, place: token }, answer: "finished" };
}

/** The fields of a stored job that may be changed from outside. */
export type JobUpdate = Partial<Pick<JobFields, "progress" | "meta">> & JobOptions;

export type UpdateAnswer = "updated" | "finished" | "unreadable";

/**
 * Sets single fields and nothing else: fields that others have written meanwhile are kept. Never sets a status. Of a
 * finished job only `meta` can be changed, because the other fields have already had their effect.
 */
export function updateJob(row: StoredJob, given: JobUpdate, nowMs: number): Decision<UpdateAnswer> {
  const job = read(row);
  if (!job) return { change: null, answer: "unreadable" };
  const update = given.meta ? { ...given, meta: withMarks(job.meta, given.meta) } : given;
  if (isTerminal(row.status)) {
    const { meta, ...rest } = update;
    if (meta === undefined || Object.keys(rest).length > 0) return { change: null, answer: "finished" };
    return { change: edit(row.status, { meta }), answer: "updated" };
  }
  const fields = { ...update, touched: Math.round(nowMs) };
  const isOfRun = row.status !== "queued" && ("timeout" in update || "heartbeat" in update);
  return { change: edit(row.status, fields, isOfRun ? keptLimits(job) : undefined), answer: "updated" };
}

/**
 * Returns marks with the limits of the current run, and with its `started`, which identifies the run. The worker
 * applies these limits until the run ends, so a sweeper must not end the run by other limits.
 */
function keptLimits(job: JobFields): MetaMarks {
  const { started, timeout, heartbeat } = asBegun(job);
  return { runLimits: `${started} ${timeout ?? 0} ${heartbeat}` };
}

/** Returns the job with the limits of its current run. Limits that were set during the run apply to the next one. */
function asBegun(job: JobFields): JobFields {
  const [started, timeout = Number.NaN, heartbeat = Number.NaN] = String(job.meta.runLimits)
    .split(" ")
    .map(Number);
  return started === job.started && timeout >= 0 && heartbeat >= 0 ? { ...job, timeout, heartbeat } : job;
}

/**
 * Queues a job again whose worker is gone. The attempt does not count. After more than `lostLimit` losses the job
 * fails; a job that was to be aborted ends as aborted. A job that was only claimed goes back without counting a loss,
 * but with a mark (`lost` is 0): because of the mark, its next worker records when it starts the job. From its second
 * loss on (from the first if `lostLimit` is 1) a job runs alone, so that a job that ends its worker takes no other jobs
 * with it.
 */
export function loseJob(
  row: StoredJob,
  nowMs: number,
  lostLimit: number,
  failedTtl: number,
  hadStarted = true,
): RowChange {
  const job = read(row);
  if (!job) return setAside;
  if (row.status === "aborting") return endAborted(job, nowMs, failedTtl);
  if (!hadStarted) return neverStarted(row, nowMs, "lost" in job.meta ? {} : { lost: 0 });
  const lost = oneMore(job.meta.lost);
  if (lost > lostLimit) {
    const alone = lost - aloneFrom(lostLimit);
    const error =
      `worker lost: ${lost} workers died while they ran this job` +
      (alone > 0 ? `, ${alone === 1 ? "the last" : `the last ${alone}`} of them while it ran alone` : "");
    return {
      ...edit("failed", finished("failed", nowMs, { error }), { lost }),
      keep: keepSeconds(job.ttl, "failed", failedTtl),
    };
  }
  const scheduled = Math.floor(nowMs / 1000);
  return {
    ...edit(
      "queued",
      { ...requeued(nowMs, scheduled, "worker lost"), attempts: Math.max(job.attempts - 1, 0) },
      { lost },
    ),
    scheduled,
    keep: null,
    ...(runsAlone({ lost }, lostLimit) && { alone: true }),
  };
}

/**
 * Returns a job to the queue that was claimed and never started. The job is as before, and the attempt does not count.
 */
export function neverStarted(row: StoredJob, nowMs: number, marks?: MetaMarks): RowChange {
  const job = read(row);
  if (!job) return setAside;
  const fields = { attempts: Math.max(job.attempts - 1, 0), started: 0, workerId: null };
  return {
    ...edit("queued", { status: "queued", ...fields }, marks),
    scheduled: columnSecond(job) || Math.floor(nowMs / 1_000),
  };
}

/** How many workers must have died during a job before it runs alone: two, or fewer if `lostLimit` is lower. */
const aloneFrom = (lostLimit: number): number => Math.max(Math.min(2, lostLimit), 1);

/** True if the job may be the reason why its workers died. It must run with no other jobs beside it. */
export const runsAlone = ({ lost }: JobFields["meta"], lostLimit: number): boolean =>
  Number.isSafeInteger(lost) && Number(lost) >= aloneFrom(lostLimit);

/**
 * Decides about a job that may be stuck beyond all grace. A stuck job gets another attempt if one is left; otherwise it
 * ends as aborted. Both write the error `swept`. A stuck job that was to be aborted ends as aborted with its own error.
 * Returns null if nothing is to be changed.
 */
export function sweepJob(
  row: StoredJob,
  nowMs: number,
  graceSeconds: number,
  failedTtl: number,
  setForwardSince?: (epochMs: number) => number,
): RowChange | null {
  const job = read(row);
  // A Python job that is too large for this process: Python's own sweeper ends it.
  if (row.unreadBytes !== undefined) return null;
  if (!job) return setAside;
  if (!isStuck(asBegun(job), nowMs, graceSeconds, setForwardSince)) return null;
  if (row.status === "aborting" || !isRetryable(job)) {
    return endAborted({ ...job, error: row.status === "aborting" ? job.error : "swept" }, nowMs, failedTtl);
  }
  const scheduled = retryDue(job, nowMs);
  return { ...edit("queued", requeued(nowMs, scheduled, "swept")), scheduled, keep: null };
}

function endAborted(job: JobFields, nowMs: number, failedTtl: number): RowChange {
  return {
    ...edit("aborted", finished("aborted", nowMs, { error: job.error })),
    keep: keepSeconds(job.ttl, "aborted", failedTtl),
  };
}

/** Adds one to a count that the engine keeps in `meta`. The old value may be anything, because `meta` is the user's. */
export const oneMore = (count: unknown): number => (Number.isSafeInteger(count) ? Number(count) + 1 : 1);

const ownCounts: ReadonlySet<string> = new Set(["lost", "cancellations", "unknownTask"]);

const marks = [...ownCounts, "awaited", "schedule", "runLimits"];

/**
 * Returns who waits for the end of the job: true = any process, a text = the process with that address, false = nobody.
 * Users may write any value into this member.
 */
export const awaitedIn = ({ awaited }: JobFields["meta"]): boolean | string =>
  awaited === true || (typeof awaited === "string" && /^[\w-]{1,40}$/.test(awaited) && awaited);

/**
 * Returns a user's new `meta` together with the members that the engine keeps in the old one. Without this, a job that
 * sets its `meta` in each run could end one worker after another, and never count as lost more than once.
 */
export const withMarks = (
  before: Readonly<Record<string, unknown>>,
  meta: Record<string, unknown>,
): Record<string, unknown> => ({
  ...Object.fromEntries(marks.filter((name) => name in before).map((name) => [name, before[name]])),
  ...meta,
});

/** Removes the engine's counts: a job that starts anew may be lost, cancelled and refused as often as any other job. */
export const withoutCounts = (meta: JobFields["meta"]): JobFields["meta"] =>
  Object.fromEntries(Object.entries(meta).filter(([name]) => !ownCounts.has(name)));

/** Returns marks that remove the engine's counts from `meta`. */
const noCounts = ({ meta }: JobFields): MetaMarks =>
  Object.fromEntries(Object.keys(meta).flatMap((name) => (ownCounts.has(name) ? [[name, null]] : [])));

/** For a row with an unreadable document: failed, kept for ever, its bytes unchanged, so that people can look at it. */
export const setAside: RowChange = { status: "failed", patch: null, removed: [], keep: null };

const edit = (status: RowChange["status"], fields: Partial<JobFields>, marks?: MetaMarks) => ({
  status,
  ...encodeChange(fields, marks),
});

/**
 * True if another worker has started the job although the row carries our token: Python does not change `lock_key` when
 * it sweeps a job and claims it again. A document that names no worker is no proof: an abort or an update through an
 * old Python handle writes the whole document as it was when that handle was made.
 */
export function isTakenOver(row: StoredJob, { workerId }: Pick<Claim, "workerId">): boolean {
  const owner = read(row)?.workerId ?? null;
  return owner !== null && owner !== workerId;
}

/** Returns the job of a row, or null if the document is not a SAQ job, or is the job of another row. */
export function read(row: StoredJob): JobFields | null {
  try {
    const job = decodeJob(row.document, row.queue, row.status);
    return job.key === row.key ? job : null;
  } catch (error) {
    if (error instanceof PoisonDocumentError) return null;
    throw error;
  }
}

/**
 * Returns the fields of a claimed job: active, with its new attempt. Calls `forgave` if the document contained NaN or
 * an infinity, which are read as null.
 *
 * @throws PoisonDocumentError if the document is not a SAQ job, or is the job of another row
 */
export function claimedFields(claim: ClaimedJob, queueName: string, forgave?: () => void): JobFields {
  const { key, document, suffix, workerId } = claim;
  const fields = decodeJob(document, queueName, "active", forgave);
  if (fields.key !== key)
    throw new PoisonDocumentError(`The stored document is that of another job, "${fields.key}"`);
  if (suffix) {
    fields.attempts = 1;
    fields.started = suffix.started;
    fields.touched = suffix.started;
    fields.workerId = workerId;
  }
  return fields;
}
