/** A claimed job, and the proof that a worker owns it. */

declare const receipt: unique symbol;

/**
 * Proof of a claim. The broker that claimed the job makes it, and only this broker reads it. After another worker has
 * taken the job over, changes with this receipt are refused.
 */
export interface Receipt {
  readonly [receipt]: true;
}

export interface Claim {
  key: string;
  receipt: Receipt;
}

export interface ClaimedJob extends Claim {
  /** When the job was due, epoch s. A job that is returned to the queue becomes due at this time again. */
  due: number;
  /** The document as the claim wrote it. If `firstStart` is not null, the document as it was enqueued. */
  document: string;
  /**
   * Not null: this is the job's first attempt, which started at this time (epoch ms). Its document does not say so: it
   * saves the time to read and write it again.
   */
  firstStart: number | null;
}
