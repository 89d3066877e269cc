import type { JobFields, Status } from "./job.js";
import type { AbortAnswer, RetryAnswer } from "./transitions.js";
import { encodeJob } from "./wire.js";

/** What a job needs of its queue. */
export interface JobOwner {
  reload(key: string): Promise<JobFields>;
  abort(key: string, error: string): Promise<AbortAnswer | null>;
  retry(key: string, options: { error: string; resetAttempts?: boolean }): Promise<RetryAnswer | null>;
}

/**
 * A job as it was when it was read; `refresh()` reads it again. Times are epoch milliseconds (0 = not yet), except
 * `scheduled` (epoch seconds).
 */
export class Job<Result = unknown> implements JobFields {
  declare readonly function: string;
  declare readonly kwargs: Record<string, unknown> | null;
  declare readonly queueName: string;
  declare readonly key: string;
  declare readonly timeout: number | null;
  declare readonly heartbeat: number;
  declare readonly retries: number;
  declare readonly ttl: number;
  declare readonly retryDelay: number;
  declare readonly retryBackoff: boolean | number;
  declare readonly scheduled: number;
  declare readonly progress: number;
  declare readonly attempts: number;
  declare readonly completed: number;
  declare readonly queued: number;
  declare readonly started: number;
  declare readonly touched: number;
  declare readonly result: Result | null;
  declare readonly error: string | null;
  declare readonly status: Status;
  declare readonly priority: number;
  declare readonly groupKey: string | null;
  declare readonly meta: Record<string, unknown>;
  declare readonly workerId: string | null;
  readonly #owner: JobOwner;

  constructor(owner: JobOwner, fields: JobFields) {
    this.#owner = owner;
    Object.assign(this, fields);
  }

  /** The key is the id on PostgreSQL (J-8). */
  get id(): string {
    return this.key;
  }

  /**
   * Reads the job again, in place.
   *
   * @throws JobGoneError when its row is gone
   */
  async refresh(): Promise<this> {
    return Object.assign(this, await this.#owner.reload(this.key));
  }

  /** Ends a waiting job, tells a running one to end; `not_active` when it is finished, null when it is gone. */
  abort(error = "aborted"): Promise<AbortAnswer | null> {
    return this.#owner.abort(this.key, error);
  }

  /** Queues a finished job again (D-26); `not_finished` while it waits or runs, null when it is gone. */
  retry(options: { error?: string; resetAttempts?: boolean } = {}): Promise<RetryAnswer | null> {
    return this.#owner.retry(this.key, { error: "retried", ...options });
  }

  /** The wire document (J-1). */
  toDocument(): Record<string, unknown> {
    return JSON.parse(encodeJob(this)) as Record<string, unknown>;
  }
}
