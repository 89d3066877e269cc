/** What the receipts of this broker hold. */
import { randomBytes } from "node:crypto";
import type { Claim, Receipt } from "../core/claim.js";

export interface ClaimReceipt {
  /** Stored in the hash of claims while the claim owns the job. */
  readonly token: string;
  /** The worker that claimed the job. A Python worker takes a job over without a token, but writes its own id. */
  readonly workerId: string;
  /** The end that the claim gave the document; null if the claim rewrote the document. */
  readonly suffix: DocumentSuffix | null;
}

/**
 * The end of a document that was still as enqueued when it was claimed: first the members in `kept`, which stay, then
 * those in `replaced`, which the settlement replaces.
 */
export interface DocumentSuffix {
  readonly kept: string;
  readonly replaced: string;
  /** Epoch ms. */
  readonly started: number;
}

/** Returns the suffix that `startScript` appends. */
export const suffixOf = (workerId: string, started: string): DocumentSuffix => ({
  started: Number(started),
  kept: `,"attempts":1,"started":${started},"worker_id":${JSON.stringify(workerId)},`,
  replaced: `"touched":${started},"status":"active"}`,
});

export const newReceipt = (claimed: ClaimReceipt): Receipt => claimed as unknown as Receipt;

export const receiptOf = ({ receipt }: Pick<Claim, "receipt">): ClaimReceipt =>
  receipt as unknown as ClaimReceipt;

/**
 * Returns the token of a new claim. It names the worker, so that the jobs of a dead worker can be found, and says
 * whether jobs of the claim may have to wait before they are started (`mayWait`).
 */
export const newToken = (workerId: string, mayWait: boolean): string =>
  `${randomBytes(6).toString("base64url")}${mayWait ? "+" : "."}${workerId}`;

/** The worker in a token. */
export const workerOf = (token: string): string => token.slice(9);

export const isClaimedAhead = (token: string): boolean => token[8] === "+";
