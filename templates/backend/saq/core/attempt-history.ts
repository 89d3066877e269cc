/**
 * The history of a job's failed attempts: the last ten, in `meta.attemptHistory`. It is written only together with the
 * end of a failed attempt, so it costs no write of its own. Other programs may write anything into `meta`, so it is
 * checked whenever it is read.
 */
import { isLarger } from "./byte-size.js";
import type { JobFields } from "./job.js";
import { attemptHistoryMember } from "./job-meta.js";
import type { MetaPatch } from "./wire.js";

/** A failed attempt, as `job.history` shows it. */
export interface FailedAttempt {
  /** When the attempt ended, or when another worker found that its worker had died. Epoch ms. */
  readonly time: number;
  /**
   * Number of the attempt, from 1. If its worker died, the attempt did not count, and the next one has the same number.
   */
  readonly attempt: number;
  /** Id of the worker; null if it is not known. */
  readonly workerId: string | null;
  /** Time from the start of the attempt to its end, ms; 0 if its task was not started. */
  readonly duration: number;
  /** The beginning of the error, at most 1,024 bytes in UTF-8. */
  readonly error: string;
}

const maxAttempts = 10;
const maxErrorBytes = 1_024;

/**
 * Returns the failed attempts that are stored with a job, the oldest first. Entries that are not readable are left out.
 */
export function historyOf({ meta }: Pick<JobFields, "meta">): FailedAttempt[] {
  const stored = meta[attemptHistoryMember];
  return Array.isArray(stored) ? stored.flatMap((entry) => readEntry(entry) ?? []).slice(-maxAttempts) : [];
}

function readEntry(entry: unknown): FailedAttempt | null {
  if (typeof entry !== "object" || entry === null) return null;
  const { time, attempt, workerId, duration, error } = entry as Partial<Record<keyof FailedAttempt, unknown>>;
  if (!isCount(time) || !isCount(attempt) || !isCount(duration) || typeof error !== "string") return null;
  const worker = typeof workerId === "string" ? beginningOf(workerId) : null;
  return { time, attempt, workerId: worker, duration, error: beginningOf(error) };
}

const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

/**
 * Returns the patch of `meta` that adds a failed attempt to the history. If `meta` would have more than `maxBytes` as
 * JSON, the oldest attempts are left out, if need be all: the history must not be the reason why a job fails. `time` is
 * epoch ms, `duration` ms.
 */
export function failurePatch(
  { meta, attempts, workerId }: Pick<JobFields, "meta" | "attempts" | "workerId">,
  failure: { time: number; duration: number; error: string },
  maxBytes: number,
): MetaPatch {
  const entry = readEntry({
    time: Math.max(Math.round(failure.time), 0),
    attempt: Math.max(Math.trunc(attempts), 1),
    workerId,
    duration: Math.max(Math.round(failure.duration), 0),
    error: failure.error,
  });
  // The whole error is stored too, and a document of more than four times `maxBytes` is not read any more. A failed job
  // has no result, so that its error may be twice as large as any part should be.
  const errorBytes = Buffer.byteLength(JSON.stringify(failure.error));
  const metaBytes = maxBytes - Math.max(errorBytes - 2 * maxBytes, 0);
  try {
    const history = fitting(meta, [...historyOf({ meta }), ...(entry ? [entry] : [])], metaBytes);
    if (history.length > 0) return { [attemptHistoryMember]: history };
    return attemptHistoryMember in meta ? { [attemptHistoryMember]: null } : {};
  } catch {
    // The task has put something into its meta that has no JSON form. What is stored is not changed by that.
    return {};
  }
}

/** Returns `meta` without the oldest attempts of its history for which `maxBytes` leaves no room. */
export function withFittingHistory(meta: JobFields["meta"], maxBytes: number): JobFields["meta"] {
  if (!(attemptHistoryMember in meta) || !isLarger(JSON.stringify(meta), maxBytes)) return meta;
  const { [attemptHistoryMember]: _, ...others } = meta;
  const history = fitting(meta, historyOf({ meta }), maxBytes);
  return history.length > 0 ? { ...others, [attemptHistoryMember]: history } : others;
}

/** Returns the last attempts of a history: at most ten, and only as many as `maxBytes` of `meta` leave room for. */
function fitting(
  meta: JobFields["meta"],
  history: readonly FailedAttempt[],
  maxBytes: number,
): readonly FailedAttempt[] {
  const { [attemptHistoryMember]: _, ...others } = meta;
  const bytesLeft = maxBytes - Buffer.byteLength(JSON.stringify(others));
  let kept = history.slice(-maxAttempts);
  // The text of the member alone has two braces, of which one takes the place of the comma in the whole `meta`.
  const bytesOf = () => Buffer.byteLength(JSON.stringify({ [attemptHistoryMember]: kept })) - 1;
  while (kept.length > 0 && bytesOf() > bytesLeft) kept = kept.slice(1);
  return kept;
}

const encoder = new TextEncoder();
const buffer = new Uint8Array(maxErrorBytes);

/**
 * Returns the beginning of a text, cut between two characters. NUL and halves of characters are replaced: jsonb cannot
 * hold them, and documents that it cannot hold are changed one by one. Not by U+FFFD: on Redis, a document with this
 * character has to be checked for invalid bytes.
 */
function beginningOf(text: string): string {
  const storable = text
    // One more than there may be, so that half of a character at the end does not fit.
    .slice(0, maxErrorBytes + 1)
    .replaceAll("\0", "?")
    .replace(/\p{Surrogate}/gu, "?");
  const { read } = encoder.encodeInto(storable, buffer);
  return storable.slice(0, read);
}
