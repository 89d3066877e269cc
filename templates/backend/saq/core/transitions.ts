/**
 * The changes of a job that are allowed. Each function decides about a row that the caller has locked. Brokers carry
 * the decisions out; this module does not depend on storage. A change that is not allowed is refused with a typed
 * answer, so that it never looks like a success.
 */

import { PoisonDocumentError } from "../errors.js";
import { failurePatch, withFittingHistory } from "./attempt-history.js";
import { defaultMaxBytes } from "./byte-size.js";
import {
  columnSecond,
  isRetryable,
  isStuck,
  isTerminal,
  type JobFields,
  type JobOptions,
  latestSecond,
  retryDelaySeconds,
  type Status,
  type TerminalStatus,
} from "./job.js";
import {
  aloneAfterLosses,
  increment,
  keepRunLimits,
  removeAttempts,
  runsAlone,
  withEngineMembers,
} from "./job-meta.js";
import type { StoredJob } from "./stored-job.js";
import { read } from "./stored-job.js";
import { editDocument, encodeChange, type MetaPatch, mergePatches } from "./wire.js";

/** A change of one row. It is decided while the row is locked. */
export interface RowChange {
  status: Status;
  /** Wire members to set, as the text of a JSON object; null leaves the stored bytes as they are. */
  patch: string | null;
  removed: readonly string[];
  scheduled?: number;
  /** True: the receipt of the claim that holds the row becomes invalid. */
  revoke?: true;
  /** Seconds to keep the row; null = for ever, negative = delete it. If left out, the time is not changed. */
  keep?: number | null;
  /**
   * True: from now on the job runs with no other job beside it, by one worker at a time. False: it runs as usual again.
   */
  alone?: boolean;
}

/**
 * Returns the seconds to keep a finished row; null = for ever, -1 = not at all. The number is whole and bounded. A
 * document may contain a number that no column accepts, and a job that cannot be settled would never end.
 */
export function keepSeconds(ttl: number, status: TerminalStatus, failedTtl: number): number | null {
  if (ttl === 0) return null;
  if (ttl < 0) return -1;
  const seconds = Math.min(Math.ceil(ttl), latestSecond);
  return status === "failed" ? Math.max(seconds, failedTtl) : seconds;
}

/** Returns the fields of a finished job. `nowMs` is epoch ms. */
export function finishedFields(
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
export function requeuedFields(nowMs: number, scheduled: number, error: string | null) {
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
export const retryDue = (job: JobFields, nowMs: number, random?: () => number): number =>
  dueAfter(retryDelaySeconds(job, random), nowMs);

/** Returns when a job is due that waits for `seconds`, epoch s. Rounded up, so that it never runs early. */
export const dueAfter = (seconds: number, nowMs: number): number =>
  seconds > 0 ? Math.min(Math.ceil(nowMs / 1000 + seconds), latestSecond) : Math.floor(nowMs / 1000);

export type Decision<T> = { change: RowChange | null; answer: T };

/**
 * - `aborted`: the job waited, and has ended. If its stored document cannot be read, it is set aside as failed.
 * - `aborting`: the job runs, and was asked to end.
 * - `not_active`: the job is finished; nothing was changed.
 */
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
  if (!job) return { change: unreadableChange, answer: "aborted" };
  if (row.status === "active") {
    return {
      change: edit("aborting", { status: "aborting", error, touched: Math.round(nowMs) }),
      answer: "aborting",
    };
  }
  return {
    change: {
      ...edit("aborted", finishedFields("aborted", nowMs, { error })),
      keep: keepSeconds(job.ttl, "aborted", failedTtl),
      // A time in the future would refuse the next enqueue of this key until the row expires. Cron jobs keep their
      // time, so that an aborted tick is not enqueued again.
      scheduled: row.key.startsWith("cron:") ? row.scheduled : 0,
    },
    answer: "aborted",
  };
}

/**
 * - `queued`: the job waits again.
 * - `not_finished`: the job waits or runs; nothing was changed.
 * - `unreadable`: its stored document cannot be read; nothing was changed.
 */
export type RetryAnswer = "queued" | "not_finished" | "unreadable";

/**
 * Queues a finished job again, at the request of a user. With `resetAttempts`, its attempts and the engine's counts in
 * `meta` are reset. The history of failed attempts stays.
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
  const fields = { ...requeuedFields(nowMs, scheduled, error), result: null };
  return {
    change: {
      ...(resetAttempts
        ? edit("queued", { ...fields, attempts: 0 }, removeAttempts(job))
        : edit("queued", fields)),
      scheduled,
      keep: null,
      ...(resetAttempts && "lost" in job.meta && { alone: false }),
    },
    answer: "queued",
  };
}

/**
 * - `deleted`: the job no longer exists.
 * - `running`: the job runs, or is being aborted; nothing was changed.
 */
export type DeleteAnswer = "deleted" | "running";

/** Deletes a job that waits or is finished, also if its document cannot be read. */
export function deleteJob({ status }: StoredJob): Decision<DeleteAnswer> {
  if (status === "active" || status === "aborting") return { change: null, answer: "running" };
  // The event of an abort makes those who wait for the job look at once. They find that it is gone.
  const ended = isTerminal(status) ? status : "aborted";
  return { change: { status: ended, patch: null, removed: [], keep: -1 }, answer: "deleted" };
}

/**
 * - `due`: the job is due now.
 * - `already_due`: the job waits and was due before; nothing was changed.
 * - `not_waiting`: the job runs or is finished; nothing was changed.
 * - `schedule`: the job is a tick of a recurring task; nothing was changed. With another time it would take the place
 *   of the run at that tick. `queue.schedules.run` runs the task now and leaves the tick.
 * - `unreadable`: its stored document cannot be read; nothing was changed.
 */
export type RunNowAnswer = "due" | "already_due" | "not_waiting" | "schedule" | "unreadable";

/** Makes a job due now that waits for its time: for a `scheduled` time, or for its next attempt. */
export function runJobNow(row: StoredJob, nowMs: number): Decision<RunNowAnswer> {
  if (row.status !== "queued") return { change: null, answer: "not_waiting" };
  const job = read(row);
  if (!job) return { change: null, answer: "unreadable" };
  const scheduled = Math.floor(nowMs / 1000);
  if (row.scheduled <= scheduled) return { change: null, answer: "already_due" };
  if (row.key.startsWith("cron:") && job.attempts === 0) return { change: null, answer: "schedule" };
  return { change: { ...edit("queued", { scheduled }), scheduled }, answer: "due" };
}

/**
 * - `finished`: the job has ended. If its stored document cannot be read, it is set aside as failed.
 * - `aborting`: the job was asked to end, so that only `aborted` is a legal end; nothing was changed.
 * - `not_active`: the job waits or is finished; nothing was changed.
 */
export type FinishAnswer = "finished" | "aborting" | "not_active";

/**
 * Ends a running job, at the request of a user. `token` is a new token: the worker that runs the job no longer owns it,
 * and is notified. After an abort was requested, `aborted` is the only allowed status.
 */
export function finishJob(
  row: StoredJob,
  status: TerminalStatus,
  outcome: { result?: unknown; error?: string | null },
  { nowMs, failedTtl, maxBytes }: { nowMs: number; failedTtl: number; maxBytes: number },
): Decision<FinishAnswer> {
  if (row.status !== "active" && row.status !== "aborting") return { change: null, answer: "not_active" };
  if (row.status === "aborting" && status !== "aborted") return { change: null, answer: "aborting" };
  const job = read(row);
  if (!job) return { change: { ...unreadableChange, revoke: true }, answer: "finished" };
  const error = outcome.error ?? job.error;
  const history = status === "failed" ? failedRun(job, nowMs, outcome.error ?? "failed", maxBytes) : {};
  const change = {
    ...edit(status, finishedFields(status, nowMs, { ...outcome, error }), history),
    keep: keepSeconds(job.ttl, status, failedTtl),
  };
  return { change: { ...change, revoke: true }, answer: "finished" };
}

/**
 * The fields of a stored job that may be changed from outside: `progress` (0 to 1), `meta` and the options. The members
 * that the engine keeps in `meta` stay.
 */
export type JobUpdate = Partial<Pick<JobFields, "progress" | "meta">> & JobOptions;

/**
 * - `updated`: the fields are set.
 * - `finished`: the job is finished, and the change contains more than `meta`; nothing was changed.
 * - `unreadable`: its stored document cannot be read; nothing was changed.
 */
export type UpdateAnswer = "updated" | "finished" | "unreadable";

/**
 * Sets single fields. Fields that others have written meanwhile are kept. Never sets a status. If the job is finished,
 * only `meta` can be changed, because the other fields have already had their effect. If a new `meta` would have more
 * than `maxBytes` together with the history of failed attempts, the oldest of these are left out.
 */
export function updateJob(
  row: StoredJob,
  requested: JobUpdate,
  nowMs: number,
  maxBytes = defaultMaxBytes,
): Decision<UpdateAnswer> {
  const job = read(row);
  if (!job) return { change: null, answer: "unreadable" };
  const update = requested.meta
    ? { ...requested, meta: withFittingHistory(withEngineMembers(job.meta, requested.meta), maxBytes) }
    : requested;
  if (isTerminal(row.status)) {
    const { meta, ...rest } = update;
    if (meta === undefined || Object.keys(rest).length > 0) return { change: null, answer: "finished" };
    return { change: edit(row.status, { meta }), answer: "updated" };
  }
  const fields = { ...update, touched: Math.round(nowMs) };
  return { change: edit(row.status, fields, runLimitsAfter(row, job, update)), answer: "updated" };
}

/** Returns the patch of `meta` that an update of a job needs, so that its current run keeps its limits. */
function runLimitsAfter({ status }: StoredJob, job: JobFields, update: JobUpdate): MetaPatch {
  if (status === "queued") return {};
  if ("timeout" in update || "heartbeat" in update) return runLimitsPatch(job);
  return update.meta ? keepRunLimits(job) : {};
}

/**
 * Returns a patch that stores the limits of the current run, and its `started`, which identifies the run. The worker
 * applies these limits until the run ends, so a sweeper must not end the run by other limits.
 */
function runLimitsPatch(job: JobFields): MetaPatch {
  const { started, timeout, heartbeat } = withRunLimits(job);
  return { runLimits: `${started} ${timeout ?? 0} ${heartbeat}` };
}

/** True if the change sets or removes `meta`. May also be true for another change whose text contains `"meta":`. */
export const setsMeta = ({ patch, removed }: { patch: string; removed: readonly string[] }): boolean =>
  removed.includes("meta") || patch.includes('"meta":');

/**
 * Returns the patch of a heartbeat for the job as it is stored now. A new `meta` keeps the limits of the run, which
 * another process may have stored since the worker read the job.
 */
export function heartbeatPatch(
  row: StoredJob,
  change: { patch: string; removed: readonly string[] },
): string {
  const job = setsMeta(change) ? read(row) : null;
  return job ? mergePatches(change.patch, encodeChange({}, keepRunLimits(job)).patch) : change.patch;
}

/** Returns the job with the limits of its current run. Limits that were set during the run apply to the next one. */
function withRunLimits(job: JobFields): JobFields {
  const [started, timeout = Number.NaN, heartbeat = Number.NaN] = String(job.meta.runLimits)
    .split(" ")
    .map(Number);
  return started === job.started && timeout >= 0 && heartbeat >= 0 ? { ...job, timeout, heartbeat } : job;
}

/**
 * Queues a job again whose worker died, or whose settlement could not be stored. The attempt does not count. After more
 * than `lostLimit` losses the job fails. If an abort was requested, the job ends as aborted. A job that was claimed but
 * not started goes back without counting a loss. Its `meta` gets `lost: 0`, so that its next worker stores when it
 * starts the job. A job runs alone from its second loss on (from the first if `lostLimit` is 1), so that a job that
 * ends its worker takes no other jobs with it. `maxBytes` limits `meta` together with the history of failed attempts.
 */
export function loseJob(
  row: StoredJob,
  nowMs: number,
  lostLimit: number,
  failedTtl: number,
  wasStarted = true,
  maxBytes = defaultMaxBytes,
): RowChange {
  const job = read(row);
  if (!job) return unreadableChange;
  if (row.status === "aborting") return endAborted(job, nowMs, failedTtl);
  if (!wasStarted) return requeueUnstarted(row, nowMs, "lost" in job.meta ? {} : { lost: 0 });
  const lost = increment(job.meta.lost);
  if (lost > lostLimit) {
    const lostAlone = lost - aloneAfterLosses(lostLimit);
    const error =
      `worker lost: ${lost} workers died while they ran this job` +
      (lostAlone > 0
        ? `, ${lostAlone === 1 ? "the last" : `the last ${lostAlone}`} of them while it ran alone`
        : "");
    return {
      ...edit("failed", finishedFields("failed", nowMs, { error }), {
        lost,
        ...failedRun(job, nowMs, error, maxBytes),
      }),
      keep: keepSeconds(job.ttl, "failed", failedTtl),
    };
  }
  const scheduled = Math.floor(nowMs / 1000);
  const error = "worker lost";
  return {
    ...edit(
      "queued",
      { ...requeuedFields(nowMs, scheduled, error), attempts: Math.max(job.attempts - 1, 0) },
      { lost, ...failedRun(job, nowMs, error, maxBytes) },
    ),
    scheduled,
    keep: null,
    ...(runsAlone({ lost }, lostLimit) && { alone: true }),
  };
}

/**
 * Returns a job to the queue that was claimed and never started. The job is the same as before the claim, and the
 * attempt does not count.
 */
export function requeueUnstarted(row: StoredJob, nowMs: number, metaPatch?: MetaPatch): RowChange {
  const job = read(row);
  if (!job) return unreadableChange;
  const fields = { attempts: Math.max(job.attempts - 1, 0), started: 0, workerId: null };
  return {
    ...edit("queued", { status: "queued", ...fields }, metaPatch),
    scheduled: columnSecond(job) || Math.floor(nowMs / 1_000),
  };
}

/**
 * Decides about a job that may have exceeded a limit by more than `graceSeconds` (a stuck job). A stuck job gets
 * another attempt if one is left; otherwise it ends as aborted. Both write the error `swept`. If an abort was
 * requested, a stuck job ends as aborted with its own error. Returns null if nothing is to be changed. `maxBytes`
 * limits `meta` together with the history of failed attempts.
 */
export function sweepJob(
  row: StoredJob,
  nowMs: number,
  graceSeconds: number,
  failedTtl: number,
  setForwardSince?: (epochMs: number) => number,
  maxBytes = defaultMaxBytes,
): RowChange | null {
  const job = read(row);
  // This is a Python job whose document is too large for this process to read. Python's own sweeper ends it.
  if (row.unreadBytes !== undefined) return null;
  if (!job) return unreadableChange;
  if (!isStuck(withRunLimits(job), nowMs, graceSeconds, setForwardSince)) return null;
  if (row.status === "aborting") return endAborted(job, nowMs, failedTtl);
  const error = "swept";
  const history = failedRun(job, nowMs, error, maxBytes);
  if (!isRetryable(job)) return endAborted({ ...job, error }, nowMs, failedTtl, history);
  const scheduled = retryDue(job, nowMs);
  return { ...edit("queued", requeuedFields(nowMs, scheduled, error), history), scheduled, keep: null };
}

function endAborted(job: JobFields, nowMs: number, failedTtl: number, metaPatch?: MetaPatch): RowChange {
  return {
    ...edit("aborted", finishedFields("aborted", nowMs, { error: job.error }), metaPatch),
    keep: keepSeconds(job.ttl, "aborted", failedTtl),
  };
}

/** Returns the patch of `meta` that adds the present run to the history of failed attempts. */
const failedRun = (job: JobFields, nowMs: number, error: string, maxBytes: number): MetaPatch =>
  failurePatch(job, { time: nowMs, duration: job.started > 0 ? nowMs - job.started : 0, error }, maxBytes);

/**
 * The change for a row with an unreadable document. The job fails and is kept for ever. The bytes of the document are
 * not changed, so that people can look at them.
 */
export const unreadableChange: RowChange = { status: "failed", patch: null, removed: [], keep: null };

/**
 * Returns the change and the new document; null if the document stays. If the document is not a JSON object, only this
 * row is set aside, with `setAside`, and the rows that are changed together with it are not affected.
 */
export function withDocument<Change extends RowChange>(
  row: StoredJob,
  change: Change,
  setAside: Change,
): { change: Change; document: string | null } {
  const { patch, removed } = change;
  if (patch === null) return { change, document: null };
  try {
    return { change, document: editDocument(row.document, patch, removed) };
  } catch (error) {
    if (error instanceof PoisonDocumentError) return { change: setAside, document: null };
    throw error;
  }
}

const edit = (status: RowChange["status"], fields: Partial<JobFields>, metaPatch?: MetaPatch) => ({
  status,
  ...encodeChange(fields, metaPatch),
});
