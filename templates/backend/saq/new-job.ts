/** A job on its way into storage, and what becomes of it there. */

/** A job about to be stored. */
export interface NewJob {
  key: string;
  /** The SAQ document (wire.ts). */
  document: string;
  priority: number;
  groupKey: string | null;
  /** Epoch seconds; 0 = due now. */
  scheduled: number;
  /** The key was chosen by the caller, so another job may hold it. Generated keys cannot conflict. */
  keyed: boolean;
  /** Its row may be deleted within a minute of the enqueue, because its ttl is negative or short. */
  shortLived: boolean;
}

/** Why a job was not stored (D-31). */
export type Refusal =
  /** A job with that key is queued, running, or being aborted. */
  | "key_alive"
  /** The key's last job is finished, but was due later than the new one; it blocks until its row expires (V-5.2). */
  | "scheduled_not_later"
  /** Another queue holds the key; keys are unique per table (D-14). */
  | "other_queue";

export type EnqueueOutcome = { stored: true } | { stored: false; reason: Refusal };
