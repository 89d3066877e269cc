import { type FailedAttempt, historyOf } from "../core/attempt-history.js";
import { type JobFields, jobDefaults, jobOptionNames, type Status } from "../core/job.js";
import { jsonText } from "../core/json-text.js";
import { omitUndefined } from "../core/omit-undefined.js";
import type {
  AbortAnswer,
  DeleteAnswer,
  JobUpdate,
  RetryAnswer,
  RunNowAnswer,
  UpdateAnswer,
} from "../core/transitions.js";
import { encodeJob, wireNames } from "../core/wire.js";
import { SaqError } from "../errors.js";
import type { EnqueueOptions } from "../tasks/task.js";

/**
 * What a caller may change when a job is enqueued again. The key stays the job's own, and so does what is left out,
 * also `payload`. A `scheduled` time of the job that has passed means at once.
 */
export type JobOverrides = Omit<EnqueueOptions, "key"> & { payload?: Record<string, unknown> };

/** What a job needs from its queue. */
export interface JobOwner {
  /** The database's clock, epoch ms. */
  now(): number;
  reload(key: string): Promise<JobFields>;
  /** Resolves when the job has ended. `timeout` in s; 0 = no limit. */
  waitForEnd(key: string, timeout: number): Promise<JobFields>;
  abort(key: string, error: string): Promise<AbortAnswer | null>;
  retry(key: string, options: { error: string; resetAttempts?: boolean }): Promise<RetryAnswer | null>;
  delete(key: string): Promise<DeleteAnswer | null>;
  runNow(key: string): Promise<RunNowAnswer | null>;
  update(key: string, change: JobUpdate): Promise<UpdateAnswer | null>;
  enqueue(job: Job, overrides: JobOverrides): Promise<Job | null>;
}

export type Duration = "process" | "start" | "total" | "running";

/** The fields that the short form of `info` leaves out. */
const fullInfoOnly: ReadonlySet<keyof JobFields> = new Set([
  "kwargs",
  ...jobOptionNames,
  "scheduled",
  "progress",
  "result",
  "error",
  "status",
  "priority",
  "groupKey",
  "meta",
]);

/**
 * A job as it was when it was read; `refresh()` reads it again. Times are epoch milliseconds (0 = not yet), except
 * `scheduled` (epoch seconds). Made by a queue: `enqueue`, `prepare`, `job`, `list` and others.
 *
 * @example
 * const job = await queue.enqueue("sendMail", { to: "ann@example.com" });
 * await job.refresh(30);
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
    // Member by member: Object.assign is slower (0.27 -> 0.04 us per job).
    this.function = fields.function;
    this.kwargs = fields.kwargs;
    this.queueName = fields.queueName;
    this.key = fields.key;
    this.timeout = fields.timeout;
    this.heartbeat = fields.heartbeat;
    this.retries = fields.retries;
    this.ttl = fields.ttl;
    this.retryDelay = fields.retryDelay;
    this.retryBackoff = fields.retryBackoff;
    this.scheduled = fields.scheduled;
    this.progress = fields.progress;
    this.attempts = fields.attempts;
    this.completed = fields.completed;
    this.queued = fields.queued;
    this.started = fields.started;
    this.touched = fields.touched;
    this.result = fields.result as Result | null;
    this.error = fields.error;
    this.status = fields.status;
    this.priority = fields.priority;
    this.groupKey = fields.groupKey;
    this.meta = fields.meta;
    this.workerId = fields.workerId;
  }

  /** The id of the job. On PostgreSQL it is the key. */
  get id(): string {
    return this.key;
  }

  /**
   * The last ten failed attempts, the oldest first. An attempt is in it if it threw, exceeded its timeout, lost its
   * worker or was stuck. A retry by hand keeps the history, and `enqueue` begins a new one.
   *
   * @example
   * for (const { attempt, duration, error } of job.history) console.log(attempt, duration, error);
   */
  get history(): FailedAttempt[] {
    return historyOf(this);
  }

  /**
   * Reads the job again, in place, and returns it. With `until`, first waits for its end: for that many seconds, 0 =
   * without limit.
   *
   * @throws JobGoneError (job_gone) if its row is gone, also during the wait
   * @throws TimeoutError (timeout) if it did not end in time
   * @throws PoisonDocumentError (poison_document) if its stored document cannot be read
   * @throws InvalidJobError (invalid_job) if `until` is not null or seconds >= 0
   * @throws SaqError queue_closed if the queue is closed during the wait; database_unavailable if the job cannot be
   *   read for 30 s of the wait
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `queue.connect` does
   * @example
   * if ((await job.refresh(30)).status === "complete") console.log(job.result);
   */
  async refresh(until: number | null = null): Promise<this> {
    const fields = until === null ? this.#owner.reload(this.key) : this.#owner.waitForEnd(this.key, until);
    return Object.assign(this, await fields);
  }

  /**
   * Stores the job under its key: a job made by `queue.prepare`, or a finished job for another run. If the key is
   * taken, nothing is stored, and the object then shows the job that is stored there. Returns the object.
   *
   * @throws InvalidPayloadError (invalid_payload) if the task's schema refuses the payload
   * @throws InvalidJobError (invalid_job) if options or payload cannot be stored, or if the job belongs to another
   *   queue
   * @throws JobGoneError (job_gone) if the key was taken, but no job of this queue has it
   * @throws PoisonDocumentError (poison_document) if the document of the job that has the key cannot be read
   * @throws SaqError unknown_task, key_held, database_unavailable and others, as `queue.enqueue` does
   * @example
   * const job = await queue.prepare("sendMail", { to: "ann@example.com" }).enqueue({ priority: 1 });
   */
  async enqueue(overrides: JobOverrides = {}): Promise<this> {
    if (!(await this.#owner.enqueue(this, overrides))) await this.refresh();
    return this;
  }

  /**
   * Sets single fields, here and in the database. A run that has started keeps the timeout and the heartbeat that it
   * began with, and also the retries unless another worker ends it. To workers other than its own, the change counts as
   * a heartbeat. Returns `updated`; `finished` and changes nothing if the job is finished and the change contains more
   * than `meta`; `unreadable` if the stored document cannot be read; null if the job is gone.
   *
   * @throws InvalidJobError (invalid_job) if there is no such field, or if a value is out of its range or too large
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `queue.connect` does
   * @example
   * await job.update({ progress: 0.5, meta: { step: "resize" } });
   */
  async update(change: JobUpdate): Promise<UpdateAnswer | null> {
    const answer = await this.#owner.update(this.key, change);
    if (answer === "updated") Object.assign(this, omitUndefined(change));
    return answer;
  }

  /**
   * Ends a waiting job (`aborted`), or asks a running job to end (`aborting`). Returns `not_active` if the job is
   * finished, null if it is gone. The object itself does not change.
   *
   * @throws InvalidJobError (invalid_job) if `error` is too large
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `queue.connect` does
   * @example
   * const answer = await job.abort("no longer needed");
   */
  abort(error = "aborted"): Promise<AbortAnswer | null> {
    return this.#owner.abort(this.key, error);
  }

  /**
   * Queues a finished job again, and resets its attempts unless `resetAttempts` is false. Returns `queued`;
   * `not_finished` while the job waits or runs; `unreadable` if its stored document cannot be read; null if the job is
   * gone. The object itself does not change.
   *
   * @throws InvalidJobError (invalid_job) if `error` is too large
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `queue.connect` does
   * @example
   * const answer = await job.retry();
   */
  retry(options: { error?: string; resetAttempts?: boolean } = {}): Promise<RetryAnswer | null> {
    return this.#owner.retry(this.key, { error: "retried", ...options });
  }

  /**
   * Deletes a job that waits or is finished. Returns `deleted`; `running` and changes nothing if the job runs; null if
   * it is gone. The object itself does not change.
   *
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `queue.connect` does
   * @example
   * const answer = await job.delete();
   */
  delete(): Promise<DeleteAnswer | null> {
    return this.#owner.delete(this.key);
  }

  /**
   * Makes a job due now that waits for its time. Returns `due`; `already_due` if it was due before; `not_waiting` if it
   * runs or is finished; `schedule` for a tick of a recurring task; `unreadable` if its stored document cannot be read;
   * null if it is gone. The object itself does not change.
   *
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `queue.connect` does
   * @example
   * const answer = await job.runNow();
   */
  runNow(): Promise<RunNowAnswer | null> {
    return this.#owner.runNow(this.key);
  }

  /**
   * Returns true for the same job, whatever the two objects know of it: only the keys are compared.
   *
   * @example
   * const isSame = job.equals({ key: "welcome:bob" });
   */
  equals(other: { readonly key: string }): boolean {
    return this.key === other.key;
  }

  /**
   * Returns how long the job ran (`process`), waited (`start`), did both (`total`), or has been running so far
   * (`running`), ms; null if the job has not come that far.
   *
   * @throws SaqError config for another kind
   * @example
   * const ms = job.duration("process");
   */
  duration(kind: Duration): number | null {
    switch (kind) {
      case "process":
        return elapsed(this.started, this.completed);
      case "start":
        return elapsed(this.queued, this.started);
      case "total":
        return elapsed(this.queued, this.completed);
      case "running":
        return elapsed(this.started, Math.round(this.#owner.now()));
      default:
        throw new SaqError(
          "config",
          `duration takes "process", "start", "total" or "running", got "${kind satisfies never}"`,
        );
    }
  }

  /**
   * Returns one line for logs, without fields that have their default. `full` adds payload, options and outcome.
   *
   * @example
   * console.log(job.info());
   */
  info(full = false): string {
    const shown = Object.entries(wireNames).flatMap(([field, name]) => {
      const value = this[field as keyof JobFields];
      const isDefault = field in jobDefaults && value === jobDefaults[field as keyof typeof jobDefaults];
      if (isDefault || (field === "meta" && Object.keys(this.meta).length === 0)) return [];
      if (!full && fullInfoOnly.has(field as keyof JobFields)) return [];
      return `${name}: ${typeof value === "string" ? value : jsonText(value)}`;
    });
    return `Job<${shown.join(", ")}>`;
  }

  /**
   * Returns the document as SAQ stores it: names in snake_case, without fields that have their default.
   *
   * @throws TypeError if payload or meta of a job that is not stored has no JSON form
   * @example
   * const { status, kwargs } = job.toDocument();
   */
  toDocument(): Record<string, unknown> {
    return JSON.parse(encodeJob(this)) as Record<string, unknown>;
  }
}

const elapsed = (from: number, to: number): number | null => (from && to ? to - from : null);
