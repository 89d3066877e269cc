/** The members that the engine keeps in the `meta` of a job, beside those of the user. */
import type { JobFields } from "./job.js";
import type { MetaPatch } from "./wire.js";

/** Adds one to a count that the engine keeps in `meta`. The old value may be anything, because `meta` is the user's. */
export const increment = (count: unknown): number => (Number.isSafeInteger(count) ? Number(count) + 1 : 1);

/** The trace from which a job was enqueued, as Litestar-SAQ stores it: the carrier of OpenTelemetry's propagator. */
export const otelContextMember = "_otel_context";

/** The span of a job's first attempt, stored when the job is retried. */
export const firstAttemptMember = "otelFirstAttempt";

/** The last failed attempts of a job (attempt-history.ts). */
export const attemptHistoryMember = "attemptHistory";

/** What the engine counts and marks during the attempts of a job. */
const attemptMembers: ReadonlySet<string> = new Set([
  "lost",
  "cancellations",
  "snoozes",
  "unknownTask",
  firstAttemptMember,
]);

const engineMembers = [...attemptMembers, "awaited", "schedule", "runLimits", otelContextMember];

/**
 * Returns who waits for the end of the job: true = any process, a text = the process with that address, false = nobody.
 * Users may write any value into this member.
 */
export const awaitedIn = ({ awaited }: JobFields["meta"]): boolean | string =>
  awaited === true || (typeof awaited === "string" && /^[\w-]{1,40}$/.test(awaited) && awaited);

/**
 * Returns a user's new `meta` together with the members that the engine keeps in the old one. Without this, a job that
 * sets its `meta` in each run could end one worker after another, and never count as lost more than once. The history
 * of the old one always stays: the new `meta` may have been made from one that was read before the last failure.
 */
export const withEngineMembers = (
  oldMeta: Readonly<Record<string, unknown>>,
  meta: Record<string, unknown>,
): Record<string, unknown> => ({
  ...Object.fromEntries(engineMembers.filter((name) => name in oldMeta).map((name) => [name, oldMeta[name]])),
  ...meta,
  ...(attemptHistoryMember in oldMeta && { [attemptHistoryMember]: oldMeta[attemptHistoryMember] }),
});

/**
 * Returns a patch that keeps the limits of the current run when a new `meta` is stored. The mark may be newer than the
 * `meta` from which the user made the new one. Without it, a sweeper would end the run by limits that its worker does
 * not apply.
 */
export const keepRunLimits = ({ meta: { runLimits } }: Pick<JobFields, "meta">): MetaPatch =>
  typeof runLimits === "string" ? { runLimits } : {};

/**
 * Removes what the engine remembers of previous attempts, for a job that is enqueued again as a new one. It may be
 * lost, cancelled and refused as often as any other job, and its history is empty.
 */
export const withoutAttempts = (meta: JobFields["meta"]): JobFields["meta"] =>
  Object.fromEntries(
    Object.entries(meta).filter(([name]) => !attemptMembers.has(name) && name !== attemptHistoryMember),
  );

/**
 * True if the job was started before: it waits for its next attempt, or it was snoozed. A snoozed attempt is not in the
 * job's `attempts`.
 */
export const hasRun = ({ attempts, meta }: Pick<JobFields, "attempts" | "meta">): boolean =>
  attempts > 0 || meta.snoozes !== undefined;

/** Returns a patch that resets what the engine counts and marks in `meta`. The history of failed attempts stays. */
export const removeAttempts = ({ meta }: JobFields): MetaPatch =>
  Object.fromEntries(Object.keys(meta).flatMap((name) => (attemptMembers.has(name) ? [[name, null]] : [])));

/** How many workers must have died during a job before it runs alone: two, or fewer if `lostLimit` is lower. */
export const aloneAfterLosses = (lostLimit: number): number => Math.max(Math.min(2, lostLimit), 1);

/** True if the job may be the reason why its workers died. It must run with no other jobs beside it. */
export const runsAlone = ({ lost }: JobFields["meta"], lostLimit: number): boolean =>
  Number.isSafeInteger(lost) && Number(lost) >= aloneAfterLosses(lostLimit);
