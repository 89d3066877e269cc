/** Decides how a job is settled after its attempt has ended. Pure, except for the random part of a retry delay. */

import type { Settlement } from "../../broker.js";
import { failurePatch } from "../../core/attempt-history.js";
import { isLarger, tooLarge } from "../../core/byte-size.js";
import type { ClaimedJob, Receipt } from "../../core/claim.js";
import { isRetryable, type JobFields } from "../../core/job.js";
import { increment } from "../../core/job-meta.js";
import { dueAfter, finishedFields, keepSeconds, requeuedFields, retryDue } from "../../core/transitions.js";
import { encodeChange, type MetaPatch } from "../../core/wire.js";
import { InvalidResultError } from "../../errors.js";
import { isNoRetry } from "../../tasks/no-retry.js";
import { returnedSnooze, type Snooze } from "../../tasks/snooze.js";
import { errorText } from "./error-text.js";

/** Reasons why an attempt must end before its task does. */
export type Interruption = "timeout" | "abort" | "shutdown" | "lost" | "crash";

/** How an attempt ended. */
export type AttemptResult =
  | { kind: "returned"; value: unknown }
  | { kind: "threw"; error: unknown }
  /** The task threw what `ctx.snooze` returned. */
  | { kind: "snoozed"; snooze: Snooze }
  | { kind: "interrupted"; interruption: Interruption; reason: Error; overdue: boolean };

/** The attempt that has ended. */
export interface EndedAttempt {
  readonly claim: ClaimedJob;
  readonly fields: JobFields;
  readonly awaited: boolean | string;
  /** How long the attempt took, ms; 0 if its task was not started. */
  readonly durationMs: number;
  /** The settlement that the task wrote itself (`ctx.finish`). */
  readonly transactionalFinish?: { readonly receipt: Receipt } | null;
  /** True if the task has changed the stored document since the claim. */
  readonly hasUpdated: boolean;
  /** Its span: `retryMeta` is stored in `meta` if the job runs again. */
  readonly trace?: { readonly retryMeta: MetaPatch | null } | null;
}

export interface SettlementRules {
  nowMs: number;
  failedTtl: number;
  /** Maximum size of a result, and of `meta` with the history of failed attempts, bytes of their JSON. */
  maxBytes: number;
}

/** Returns what to write for an ended attempt; null if this attempt must not settle its job. */
export function settlementOf(
  attempt: EndedAttempt,
  end: AttemptResult,
  rules: SettlementRules,
): Settlement | null {
  switch (end.kind) {
    case "returned":
      return completion(attempt, end.value, rules);
    case "threw":
      if (end.error instanceof InvalidResultError || isNoRetry(end.error))
        return finalFailure(attempt, errorText(end.error), rules);
      return failure(attempt, errorText(end.error), rules);
    case "snoozed":
      return snoozed(attempt, end.snooze.seconds, rules);
    case "interrupted":
      switch (end.interruption) {
        case "timeout":
          return failure(attempt, errorText(end.reason), rules);
        case "shutdown":
          return cancellation(attempt, rules);
        case "abort":
          return settlement(
            attempt,
            finishedFields("aborted", rules.nowMs, { error: attempt.fields.error }),
            {
              keep: keepSeconds(attempt.fields.ttl, "aborted", rules.failedTtl),
            },
          );
        case "lost":
        // The runner records it as a loss.
        case "crash":
          return null;
      }
  }
}

/**
 * Returns the settlement of a job that was claimed and not started. The job goes back as it was, except for
 * `metaPatch` in its `meta`, and the attempt is not counted.
 */
export function release({ claim, fields }: EndedAttempt, metaPatch?: MetaPatch): Settlement {
  return {
    key: claim.key,
    receipt: claim.receipt,
    ...encodeChange({ status: "queued", started: 0, workerId: null, touched: fields.queued }, metaPatch),
    status: "queued",
    charge: -1,
    keep: null,
    scheduled: claim.due,
    awaited: false,
    result: null,
    unchanged: false,
  };
}

function completion(attempt: EndedAttempt, value: unknown, rules: SettlementRules): Settlement {
  const mistake = returnedSnooze(value);
  if (mistake !== null) return finalFailure(attempt, mistake, rules);
  let result: string | undefined;
  try {
    result = asJson(value);
  } catch (error) {
    return unserializable(attempt, errorText(error), rules);
  }
  if (result === undefined) return unserializable(attempt, `a ${typeof value} has no JSON form`, rules);
  if (isLarger(result, rules.maxBytes))
    return finalFailure(attempt, resultTooLarge(attempt, result, rules), rules);
  return completed(attempt, result, rules);
}

/**
 * Returns the settlement that a task writes in its own transaction.
 *
 * @throws InvalidResultError if the result has no JSON form or is too large
 */
export function transactionalSettlement(
  attempt: EndedAttempt,
  value: unknown,
  rules: SettlementRules,
): Settlement {
  let result: string | undefined;
  let reason = `a ${typeof value} has no JSON form`;
  try {
    result = asJson(value);
  } catch (error) {
    reason = (error as Error).message;
  }
  if (result !== undefined && isLarger(result, rules.maxBytes))
    throw new InvalidResultError(attempt.fields.function, [
      { path: "", message: resultTooLarge(attempt, result, rules) },
    ]);
  if (result !== undefined) return completed(attempt, result, rules);
  const message = `it cannot be stored as JSON: ${reason}`;
  throw new InvalidResultError(attempt.fields.function, [{ path: "", message }]);
}

const resultTooLarge = ({ fields }: EndedAttempt, result: string, { maxBytes }: SettlementRules): string =>
  tooLarge(`The result of task "${fields.function}"`, result, maxBytes);

const asJson = (value: unknown): string | undefined => (value === undefined ? "null" : JSON.stringify(value));

function completed(attempt: EndedAttempt, result: string, rules: SettlementRules): Settlement {
  const { fields } = attempt;
  const now = Math.round(rules.nowMs);
  return {
    key: attempt.claim.key,
    receipt: attempt.transactionalFinish?.receipt ?? attempt.claim.receipt,
    status: "complete",
    // Built by hand, because the result is JSON text already: to encode a large result twice would be expensive.
    patch: `{"progress":1,"completed":${now},"touched":${now},${result === "null" ? "" : `"result":${result},`}"status":"complete"}`,
    removed: result === "null" ? removedWithoutResult : removedWithResult,
    charge: 0,
    keep: keepSeconds(fields.ttl, "complete", rules.failedTtl),
    scheduled: 0,
    awaited: attempt.awaited,
    result: typeof attempt.awaited === "string" ? result : null,
    unchanged: !attempt.hasUpdated && hasNoPreviousRun(fields),
  };
}

const removedWithResult: readonly string[] = ["error"];
const removedWithoutResult: readonly string[] = ["error", "result"];

/** True if the document has none of the members that a completion sets or removes, but `status` and `touched`. */
const hasNoPreviousRun = ({ progress, completed, result, error }: JobFields): boolean =>
  progress === 0 && completed === 0 && result === null && error === null;

/** Fails the job without a retry: the same task would return the same kind of value again. */
function unserializable(attempt: EndedAttempt, reason: string, rules: SettlementRules): Settlement {
  const error = `The result of task "${attempt.fields.function}" cannot be stored as JSON: ${reason}`;
  return finalFailure(attempt, error, rules);
}

/** Fails the job, even if attempts are left. */
export function lastFailure(attempt: EndedAttempt, error: Error, rules: SettlementRules): Settlement {
  return finalFailure(attempt, errorText(error), rules);
}

function finalFailure(attempt: EndedAttempt, error: string, rules: SettlementRules): Settlement {
  const keep = keepSeconds(attempt.fields.ttl, "failed", rules.failedTtl);
  const change = finishedFields("failed", rules.nowMs, { error });
  return settlement(attempt, change, { keep }, historyWith(attempt, error, rules));
}

/** Returns the patch of `meta` that adds this attempt to the history of failed attempts. */
const historyWith = (
  { fields, durationMs }: EndedAttempt,
  error: string,
  rules: SettlementRules,
): MetaPatch => failurePatch(fields, { time: rules.nowMs, duration: durationMs, error }, rules.maxBytes);

/** After an error or a timeout: retries the job if attempts are left, otherwise fails it. */
function failure(attempt: EndedAttempt, error: string, rules: SettlementRules): Settlement {
  const { fields } = attempt;
  if (!isRetryable(fields)) return finalFailure(attempt, error, rules);
  const scheduled = retryDue(fields, rules.nowMs);
  const metaPatch = { ...historyWith(attempt, error, rules), ...attempt.trace?.retryMeta };
  return settlement(attempt, requeuedFields(rules.nowMs, scheduled, error), { scheduled }, metaPatch);
}

/** The task asked for another run: the job waits without an error, and the attempt is not counted. */
function snoozed(attempt: EndedAttempt, seconds: number, { nowMs }: SettlementRules): Settlement {
  const { fields, trace } = attempt;
  const scheduled = dueAfter(seconds, nowMs);
  const metaPatch = { snoozes: increment(fields.meta.snoozes), ...trace?.retryMeta };
  const change = requeuedFields(nowMs, scheduled, null);
  return { ...settlement(attempt, change, { charge: -1, scheduled }, metaPatch), behindOthers: true };
}

/** At a shutdown: the job always goes back into the queue, and the attempt is not counted. */
function cancellation(attempt: EndedAttempt, rules: SettlementRules): Settlement {
  const { fields, claim, trace } = attempt;
  const change = { ...requeuedFields(rules.nowMs, claim.due, "cancelled"), scheduled: fields.scheduled };
  const metaPatch = { cancellations: increment(fields.meta.cancellations), ...trace?.retryMeta };
  return settlement(attempt, change, { charge: -1, scheduled: claim.due }, metaPatch);
}

function settlement(
  { claim, awaited, transactionalFinish }: EndedAttempt,
  change: Partial<JobFields> & { status: Settlement["status"] },
  { keep = null, charge = 0, scheduled = 0 }: Partial<Pick<Settlement, "keep" | "charge" | "scheduled">>,
  metaPatch?: MetaPatch,
): Settlement {
  return {
    key: claim.key,
    receipt: transactionalFinish?.receipt ?? claim.receipt,
    status: change.status,
    ...encodeChange(change, metaPatch),
    charge,
    keep,
    scheduled,
    awaited,
    result: null,
    unchanged: false,
  };
}
