/** What the receipts of this broker hold. */
import type { Claim, Receipt } from "../core/claim.js";

/**
 * The end of a document that was still as enqueued when it was claimed: first the members in `kept`, which stay, then
 * those in `replaced`, which the settlement replaces. They say that this is the first attempt, which worker runs it,
 * and when it started.
 */
export interface DocumentSuffix {
  readonly kept: string;
  readonly replaced: string;
  /** Epoch ms. */
  readonly started: number;
}

export interface ClaimReceipt {
  /** The row's `lock_key` while the claim owns it. Only the holder of the present token may change a claimed job. */
  readonly token: number;
  /** The worker that claimed the job. A Python worker takes a job over without a new token, but writes its own id. */
  readonly workerId: string;
  /** The row's position among jobs that are due in the same second. It is restored when the job is returned. */
  readonly place: number;
  /** The end that the claim gave the document; null if the claim rewrote the document. */
  readonly suffix: DocumentSuffix | null;
  /** The transaction in which the task finished the job itself. That transaction may have been rolled back. */
  readonly transaction: string | null;
}

export const newReceipt = (claimed: ClaimReceipt): Receipt => claimed as unknown as Receipt;

export const receiptOf = ({ receipt }: Pick<Claim, "receipt">): ClaimReceipt =>
  receipt as unknown as ClaimReceipt;
