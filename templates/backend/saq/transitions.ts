/**
 * What may happen to a job, as pure decisions over a row that somebody holds locked (V-5, V-7). Brokers carry them
 * out; nothing here knows about storage. An illegal change is refused with a word, never silently done.
 */
import type { Claim, ClaimedJob, RowChange, StoredJob } from "./broker.js";
import { PoisonDocumentError } from "./errors.js";
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
 * Seconds that a finished row is kept; null = for ever, -1 = not at all (J-16, D-83). Whole and bounded, because a
 * document may hold what no column takes, and a job whose end cannot be written would run for ever.
 */
export function keepSeconds(ttl: number, status: TerminalStatus, failedTtl: number): number | null {
  if (ttl === 0) return null;
  if (ttl < 0) return -1;
  const whole = Math.min(Math.ceil(ttl), latestSecond);
  return status === "failed" ? Math.max(whole, failedTtl) : whole;
}

/** The fields of a finished job (V-5.7, V-5.8, V-5.12). */
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

/** The fields of a job that waits for its next attempt (V-5.9). `scheduled` is epoch seconds. */
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

/** When the next attempt is due, epoch s: a delay is rounded up, no delay is now (D-30). */
export function retryDue(job: JobFields, nowMs: number, random?: () => number): number {
  const delay = retryDelaySeconds(job, random);
  return delay > 0 ? Math.min(Math.ceil(nowMs / 1000 + delay), latestSecond) : Math.floor(nowMs / 1000);
}

export type Decision<T> = { change: RowChange | null; answer: T };

export type AbortAnswer = "aborted" | "aborting" | "not_active";

/** Abort: a waiting job ends at once, a running one is told (V-5.10, V-5.11), a finished one stays as it is (D-23). */
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
      // A kept future time would refuse the key's next enqueue until the row expires (D-31). Cron entries need it:
      // there it is what keeps an aborted tick from being enqueued again.
      scheduled: row.key.startsWith("cron:") ? row.scheduled : 0,
    },
    answer: "aborted",
  };
}

export type RetryAnswer = "queued" | "not_finished" | "unreadable";

/** Retry by hand: only a finished job (D-26). Its attempts, and the counts beside them, start anew unless told otherwise. */
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
 * An end by hand, of a job that runs (V-5.7, V-5.8, V-5.12). `token` is a new one: the worker that runs it no longer
 * owns it, and is told so. Once an abort was asked for, only `aborted` is a legal end (D-25).
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

/** What may be changed of a stored job from outside (J-20). */
export type JobUpdate = Partial<Pick<JobFields, "progress" | "meta">> & JobOptions;

export type UpdateAnswer = "updated" | "finished" | "unreadable";

/**
 * Sets single fields, and nothing else: what others wrote meanwhile stays (D-21). Never a status. Of a finished job
 * only `meta`: the rest has had its effect.
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
 * The limits with which the run under way began, and by its `started` which run that is: its worker goes by them to the
 * end, and a sweeper must not end it by others.
 */
function keptLimits(job: JobFields): MetaMarks {
  const { started, timeout, heartbeat } = asBegun(job);
  return { runLimits: `${started} ${timeout ?? 0} ${heartbeat}` };
}

/** The job with the limits of the run under way; what was set meanwhile is for the next one. */
function asBegun(job: JobFields): JobFields {
  const [started, timeout = Number.NaN, heartbeat = Number.NaN] = String(job.meta.runLimits)
    .split(" ")
    .map(Number);
  return started === job.started && timeout >= 0 && heartbeat >= 0 ? { ...job, timeout, heartbeat } : job;
}

/**
 * The worker that ran it is gone: another run, uncharged, at most `lostLimit` times (5.2). A job that was only claimed
 * goes back uncounted, with a mark (`lost` is 0) that has its next worker write down when it starts the job. From its
 * second loss on a job runs alone, so that one which ends its worker takes no others with it.
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

/** A job that was claimed and never started goes back as it was before, uncharged. */
export function neverStarted(row: StoredJob, nowMs: number, marks?: MetaMarks): RowChange {
  const job = read(row);
  if (!job) return setAside;
  const fields = { attempts: Math.max(job.attempts - 1, 0), started: 0, workerId: null };
  return {
    ...edit("queued", { status: "queued", ...fields }, marks),
    scheduled: columnSecond(job) || Math.floor(nowMs / 1_000),
  };
}

/** So many workers must have died while they ran a job before it runs alone: two, or fewer where fewer are allowed. */
const aloneFrom = (lostLimit: number): number => Math.max(Math.min(2, lostLimit), 1);

/** The job may be what ends its workers: it runs without others beside it. */
export const runsAlone = ({ lost }: JobFields["meta"], lostLimit: number): boolean =>
  Number.isSafeInteger(lost) && Number(lost) >= aloneFrom(lostLimit);

/** Stuck past every grace: another attempt when one is left, else aborted with the text `swept` (V-5.13, P-31). */
export function sweepJob(
  row: StoredJob,
  nowMs: number,
  graceSeconds: number,
  failedTtl: number,
  setForwardSince?: (epochMs: number) => number,
): RowChange | null {
  const job = read(row);
  // A job of Python's that is too large for us: its own sweeper ends it.
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

/** A count of ours in `meta`, which is the user's: what is there may be anything. */
export const oneMore = (count: unknown): number => (Number.isSafeInteger(count) ? Number(count) + 1 : 1);

const ownCounts: ReadonlySet<string> = new Set(["lost", "cancellations", "unknownTask"]);

const marks = [...ownCounts, "awaited", "schedule", "runLimits"];

/** Somebody waits for the end of the job: any process, or the one with that address. The user may write what he likes. */
export const awaitedIn = ({ awaited }: JobFields["meta"]): boolean | string =>
  awaited === true || (typeof awaited === "string" && /^[\w-]{1,40}$/.test(awaited) && awaited);

/**
 * A new `meta` of the user's, with what the engine keeps in the old one: a job that sets its `meta` in each run would
 * otherwise take down worker after worker, never counted as lost more than once.
 */
export const withMarks = (
  before: Readonly<Record<string, unknown>>,
  meta: Record<string, unknown>,
): Record<string, unknown> => ({
  ...Object.fromEntries(marks.filter((name) => name in before).map((name) => [name, before[name]])),
  ...meta,
});

/** A job that starts anew may be lost, cancelled and refused as often as any other. */
export const withoutCounts = (meta: JobFields["meta"]): JobFields["meta"] =>
  Object.fromEntries(Object.entries(meta).filter(([name]) => !ownCounts.has(name)));

/** Marks that remove the counts in `meta`. */
const noCounts = ({ meta }: JobFields): MetaMarks =>
  Object.fromEntries(Object.keys(meta).flatMap((name) => (ownCounts.has(name) ? [[name, null]] : [])));

/** A row nobody can read: failed, kept for ever, bytes untouched, so that it can be looked at (D-3). */
export const setAside: RowChange = { status: "failed", patch: null, removed: [], keep: null };

const edit = (status: RowChange["status"], fields: Partial<JobFields>, marks?: MetaMarks) => ({
  status,
  ...encodeChange(fields, marks),
});

/**
 * Another worker has started the job although the row carries our token: Python leaves `lock_key` as it is when it
 * sweeps a job and claims it again. A document that names no worker is no proof, because an abort or an update through
 * an old handle of Python's writes the whole document as it was when that handle was made (D-21).
 */
export function isTakenOver(row: StoredJob, { workerId }: Pick<Claim, "workerId">): boolean {
  const owner = read(row)?.workerId ?? null;
  return owner !== null && owner !== workerId;
}

/** The job of a row, or null when its document is poison: no SAQ job, or the job of another row. */
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
 * The job of a claim, active, with its new attempt. Calls `forgave` when its document held NaN or an infinity, which are
 * read as null (D-64).
 *
 * @throws PoisonDocumentError when its document is no SAQ job, or the job of another row (D-3)
 */
export function claimedFields(claim: ClaimedJob, queueName: string, forgave?: () => void): JobFields {
  const { key, document, ending, workerId } = claim;
  const fields = decodeJob(document, queueName, "active", forgave);
  if (fields.key !== key)
    throw new PoisonDocumentError(`The stored document is that of another job, "${fields.key}"`);
  if (ending) {
    fields.attempts = 1;
    fields.started = ending.started;
    fields.touched = ending.started;
    fields.workerId = workerId;
  }
  return fields;
}
