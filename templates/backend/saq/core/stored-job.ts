/** Reads the job of a stored row or of a claim. */

import { PoisonDocumentError } from "../errors.js";
import type { ClaimedJob } from "./claim.js";
import type { JobFields, Status } from "./job.js";
import { decodeJob } from "./wire.js";

/** A row as it is stored. */
export interface StoredJob {
  key: string;
  queue: string;
  status: Status;
  /** The column, epoch s. */
  scheduled: number;
  document: string;
  /** Size in bytes of a document that is too large to be read; `document` is empty then. */
  unreadBytes?: number;
}

/**
 * True if another worker has started the job although the row carries our token: Python does not change `lock_key` when
 * it sweeps a job and claims it again. A document that names no worker is no proof: an abort or an update through an
 * old Python handle writes the whole document as it was when that handle was made.
 */
export function isTakenOver(row: StoredJob, { workerId }: { workerId: string }): boolean {
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
 * Returns the fields of a claimed job: active, with its new attempt. Calls `onInvalidNumber` if the document
 * contained NaN or an infinity, which are read as null.
 *
 * @throws PoisonDocumentError if the document is not a SAQ job, or is the job of another row
 */
export function claimedFields(
  { key, document, firstStart }: ClaimedJob,
  {
    queueName,
    workerId,
    onInvalidNumber,
  }: { queueName: string; workerId: string; onInvalidNumber?: (() => void) | undefined },
): JobFields {
  const fields = decodeJob(document, queueName, "active", onInvalidNumber);
  if (fields.key !== key)
    throw new PoisonDocumentError(`The stored document belongs to another job, "${fields.key}"`);
  if (firstStart !== null) {
    fields.attempts = 1;
    fields.started = firstStart;
    fields.touched = firstStart;
    fields.workerId = workerId;
  }
  return fields;
}
