/** From the end of an attempt to what is written about it. Pure, apart from the dice of the retry delay. */
import type { ClaimedJob, Settlement } from "../broker.js";
import { isLarger, tooLarge } from "../byte-size.js";
import { InvalidResultError } from "../errors.js";
import { isRetryable, type JobFields } from "../job.js";
import { finished, keepSeconds, oneMore, requeued, retryDue } from "../transitions.js";
import { encodeChange, type MetaMarks } from "../wire.js";
import { errorText } from "./error-text.js";

/** Why an attempt is to end before its task does. */
export type Interruption = "timeout" | "abort" | "shutdown" | "lost" | "crash";

/** How an attempt ended. */
export type AttemptEnd =
  | { kind: "returned"; value: unknown }
  | { kind: "threw"; error: unknown }
  | { kind: "interrupted"; why: Interruption; reason: Error; overdue: boolean };

/** The attempt whose end it is. */
export interface Attempted {
  readonly claim: ClaimedJob;
  readonly fields: JobFields;
  readonly awaited: boolean | string;
  /** What the task has written about the end itself. */
  readonly ownEnd?: { readonly transaction: string } | null;
}

export interface OutcomeRules {
  nowMs: number;
  failedTtl: number;
  /** Of a result. */
  maxBytes: number;
}

/** What to write for an ended attempt; null when it is no longer ours to write. */
export function settlementOf(attempt: Attempted, end: AttemptEnd, rules: OutcomeRules): Settlement | null {
  switch (end.kind) {
    case "returned":
      return completion(attempt, end.value, rules);
    case "threw":
      if (end.error instanceof InvalidResultError) return finalFailure(attempt, errorText(end.error), rules);
      return failure(attempt, errorText(end.error), rules);
    case "interrupted":
      switch (end.why) {
        case "timeout":
          return failure(attempt, errorText(end.reason), rules);
        case "shutdown":
          return cancellation(attempt, rules);
        case "abort":
          return settlement(attempt, finished("aborted", rules.nowMs, { error: attempt.fields.error }), {
            keep: keepSeconds(attempt.fields.ttl, "aborted", rules.failedTtl),
          });
        case "lost":
        // Recorded as a loss by the runner.
        case "crash":
          return null;
      }
  }
}

/** A job that was claimed and never started goes back as it was but for these marks in its `meta`, uncharged. */
export function release({ claim, fields }: Attempted, marks?: MetaMarks): Settlement {
  return {
    key: claim.key,
    token: claim.token,
    workerId: claim.workerId,
    place: claim.place,
    ...encodeChange({ status: "queued", started: 0, workerId: null, touched: fields.queued }, marks),
    status: "queued",
    charge: -1,
    keep: null,
    scheduled: claim.due,
    awaited: false,
    result: null,
    finishedIn: null,
    ending: null,
  };
}

function completion(attempt: Attempted, value: unknown, rules: OutcomeRules): Settlement {
  let result: string | undefined;
  try {
    result = asJson(value);
  } catch (error) {
    return unwritable(attempt, errorText(error), rules);
  }
  if (result === undefined) return unwritable(attempt, `a ${typeof value} has no JSON form`, rules);
  if (isLarger(result, rules.maxBytes))
    return finalFailure(attempt, resultTooLarge(attempt, result, rules), rules);
  return completed(attempt, result, rules);
}

/**
 * What a task records itself, in a transaction of its own.
 *
 * @throws InvalidResultError when the result has no JSON form or is too large
 */
export function ownCompletion(attempt: Attempted, value: unknown, rules: OutcomeRules): Settlement {
  let result: string | undefined;
  let why = `a ${typeof value} has no JSON form`;
  try {
    result = asJson(value);
  } catch (error) {
    why = (error as Error).message;
  }
  if (result !== undefined && isLarger(result, rules.maxBytes))
    throw new InvalidResultError(attempt.fields.function, [
      { path: "", message: resultTooLarge(attempt, result, rules) },
    ]);
  if (result !== undefined) return completed(attempt, result, rules);
  const message = `it cannot be stored as JSON: ${why}`;
  throw new InvalidResultError(attempt.fields.function, [{ path: "", message }]);
}

const resultTooLarge = ({ fields }: Attempted, result: string, { maxBytes }: OutcomeRules): string =>
  tooLarge(`The result of task "${fields.function}"`, result, maxBytes);

const asJson = (value: unknown): string | undefined => (value === undefined ? "null" : JSON.stringify(value));

function completed(attempt: Attempted, result: string, rules: OutcomeRules): Settlement {
  const { fields } = attempt;
  const now = Math.round(rules.nowMs);
  return {
    key: attempt.claim.key,
    token: attempt.claim.token,
    workerId: attempt.claim.workerId,
    place: attempt.claim.place,
    status: "complete",
    // By hand, because the result is JSON text already: encoding it twice is what a large result would cost.
    patch: `{"progress":1,"completed":${now},"touched":${now},${result === "null" ? "" : `"result":${result},`}"status":"complete"}`,
    removed: result === "null" ? removedWithoutResult : removedWithResult,
    charge: 0,
    keep: keepSeconds(fields.ttl, "complete", rules.failedTtl),
    scheduled: 0,
    awaited: attempt.awaited,
    result: typeof attempt.awaited === "string" ? result : null,
    finishedIn: attempt.ownEnd?.transaction ?? null,
    ending: isUntried(fields) ? attempt.claim.ending : null,
  };
}

const removedWithResult: readonly string[] = ["error"];
const removedWithoutResult: readonly string[] = ["error", "result"];

/** Nothing in its document stands for what a completion sets or removes. */
const isUntried = ({ progress, completed, result, error }: JobFields): boolean =>
  progress === 0 && completed === 0 && result === null && error === null;

/** Never retried: the same task would return the same kind of thing again (D-40). */
function unwritable(attempt: Attempted, why: string, rules: OutcomeRules): Settlement {
  const error = `The result of task "${attempt.fields.function}" cannot be stored as JSON: ${why}`;
  return finalFailure(attempt, error, rules);
}

/** Fails whatever attempts are left. */
export function lastFailure(attempt: Attempted, error: Error, rules: OutcomeRules): Settlement {
  return finalFailure(attempt, errorText(error), rules);
}

function finalFailure(attempt: Attempted, error: string, rules: OutcomeRules): Settlement {
  return settlement(attempt, finished("failed", rules.nowMs, { error }), {
    keep: keepSeconds(attempt.fields.ttl, "failed", rules.failedTtl),
  });
}

/** V-6. */
function failure(attempt: Attempted, error: string, rules: OutcomeRules): Settlement {
  const { fields } = attempt;
  if (!isRetryable(fields)) return finalFailure(attempt, error, rules);
  const scheduled = retryDue(fields, rules.nowMs);
  return settlement(attempt, requeued(rules.nowMs, scheduled, error), { scheduled });
}

/** Shutdown: back into the queue, and the run does not count (V-5.14, D-47). */
function cancellation(attempt: Attempted, rules: OutcomeRules): Settlement {
  const { fields, claim } = attempt;
  const change = { ...requeued(rules.nowMs, claim.due, "cancelled"), scheduled: fields.scheduled };
  const marks = { cancellations: oneMore(fields.meta.cancellations) };
  return settlement(attempt, change, { charge: -1, scheduled: claim.due }, marks);
}

function settlement(
  { claim, awaited, ownEnd }: Attempted,
  change: Partial<JobFields> & { status: Settlement["status"] },
  { keep = null, charge = 0, scheduled = 0 }: Partial<Pick<Settlement, "keep" | "charge" | "scheduled">>,
  marks?: MetaMarks,
): Settlement {
  return {
    key: claim.key,
    token: claim.token,
    workerId: claim.workerId,
    place: claim.place,
    status: change.status,
    ...encodeChange(change, marks),
    charge,
    keep,
    scheduled,
    awaited,
    result: null,
    finishedIn: ownEnd?.transaction ?? null,
    ending: null,
  };
}
