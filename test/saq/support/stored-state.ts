/** What tests read and change in the storage of a queue, past the engine. Each broker has its own implementation. */

/** A stored job: a row of saq_jobs, or what Redis holds under the job's key. Seconds are numbers, the document is text. */
export interface JobRow {
  key: string;
  queue: string;
  status: string;
  priority: number;
  group_key: string | null;
  /** When the job is due, epoch s. On Redis 0 for a job that is due, runs or has ended. */
  scheduled: number;
  /** When the job is deleted, epoch s; null = never. */
  expire_at: number | null;
  /** Proof of the present claim. On Redis always 0: compare `token`. */
  lock_key: number;
  text: string;
  [name: string]: unknown;
}

/** A job as another program stores it. */
export type NewRow = { key: string; queue: string; document: string | Buffer } & Partial<
  Pick<JobRow, "status" | "scheduled" | "priority" | "group_key" | "expire_at">
>;

/** A change by another program that tells nobody. What is left out stays as it is. */
export interface RowEdit {
  status?: string;
  /** Epoch s. */
  scheduled?: number;
  /** Epoch s. */
  expire_at?: number;
  /** Members to set in the document. */
  members?: object;
  /** The whole document, in place of the old one. */
  document?: string | Buffer;
}

export interface StoredWorker {
  /** Seconds until the row or the key of the worker expires. */
  left: number;
  metadata: unknown;
}

export interface StoredState {
  /** The clock of the server, epoch s with fractions. */
  now(): Promise<number>;
  row(key: string): Promise<JobRow | undefined>;
  rows(queue: string): Promise<JobRow[]>;
  insert(row: NewRow): Promise<void>;
  edit(key: string, edit: RowEdit): Promise<void>;
  remove(key: string): Promise<void>;
  /** Makes another worker the owner of a running job, without a change of its document. */
  takeOver(key: string): Promise<void>;
  /** Sends the notification of a new job. On Redis there is none: a worker that waits sees the list. */
  announce(queue: string): Promise<void>;
  /** Sends the notification that a job has this status. */
  publish(queue: string, key: string, status: string): Promise<void>;
  /** Sends a text to the one process that waits at this address (`Broker.openReplyChannel`). */
  reply(address: string, text: string): Promise<void>;
  worker(queue: string, workerId: string): Promise<StoredWorker | undefined>;
  /** Makes the worker look as if its last sign of life had expired a minute ago. */
  expireWorker(queue: string, workerId: string): Promise<void>;
  /** Moves the last tick of a recurring task back. */
  rewindTick(queue: string, name: string, seconds: number): Promise<void>;
  /** What the engine has open at the server: a text for each connection. */
  connections(): Promise<string[]>;
}
