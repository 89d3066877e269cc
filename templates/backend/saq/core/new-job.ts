/** A job on its way into storage, and the outcome of storing it. */

/** A job that is about to be stored. */
export interface NewJob {
  key: string;
  /** The SAQ document (see wire.ts). */
  document: string;
  priority: number;
  groupKey: string | null;
  /** Epoch seconds; 0 = due now. */
  scheduled: number;
  /** True if the caller chose the key, so that another job may have it. Generated keys cannot conflict. */
  keyed: boolean;
  /** True if the row may be deleted within a minute of the enqueue, because the ttl is negative or short. */
  shortLived: boolean;
}

/** Reason why a job was not stored. */
export type Refusal =
  /** A job with this key is queued, running, or being aborted. */
  | "key_alive"
  /** The key's last job is finished, but the new job is not due later; it blocks the key until its row expires. */
  | "scheduled_not_later"
  /** Another queue has the key; keys are unique per table. */
  | "other_queue";

export type EnqueueOutcome = { stored: true } | { stored: false; reason: Refusal };
