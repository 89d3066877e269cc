/** The rows of the jobs table, as the statements return them and as the engine reads them. */
import { isUtf8 } from "node:buffer";
import { parseStatus } from "../core/job.js";
import type { StoredJob } from "../core/stored-job.js";

export interface RawRow {
  key: string;
  queue: string;
  status: string;
  /** A bigint, as text. Epoch seconds. */
  scheduled: string;
  token: number;
  /** Null when the document is too large to be read, or too large to be read together with the others of a list. */
  bytes: Buffer | null;
  size: number;
  /** The database's clock when the row was read, epoch ms. */
  clock: number;
}

/** A row of the table. */
export interface Row extends StoredJob {
  /** The column `lock_key`: while the job runs, the token of its claim; otherwise its position in the queue. */
  token: number;
}

export const toRow = (raw: RawRow): Row => ({
  key: raw.key,
  queue: raw.queue,
  // An unknown status is shown as failed, so that the row can be seen and deleted.
  status: parseStatus(raw.status) ?? "failed",
  scheduled: Number(raw.scheduled),
  token: raw.token,
  // Decoding invalid UTF-8 would change the bytes, and an edit would write the changed bytes back. The empty document
  // is no SAQ job, so the row is treated as unreadable and its bytes stay as they are.
  document: raw.bytes && isUtf8(raw.bytes) ? raw.bytes.toString("utf8") : "",
  ...(raw.bytes ? {} : { unreadBytes: raw.size }),
});
