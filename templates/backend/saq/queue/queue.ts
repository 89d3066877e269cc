/**
 * A queue: enqueue jobs, wait for them, look at them, change them. It knows its tasks' types, and nothing of storage.
 */

import type { Broker, JobCounts, JobFilter, WorkerRow } from "../broker.js";
import type { QueueConfig } from "../config/index.js";
import type { BulkAction } from "../core/bulk-change.js";
import { type Capabilities, requireCapability } from "../core/capabilities.js";
import type { JobFields, Status, TerminalStatus } from "../core/job.js";
import type {
  AbortAnswer,
  DeleteAnswer,
  FinishAnswer,
  JobUpdate,
  RetryAnswer,
  RunNowAnswer,
  UpdateAnswer,
} from "../core/transitions.js";
import { InvalidJobError } from "../errors.js";
import { type Logger, neverThrowing, silentLogger } from "../logger.js";
import type { ApplyOptions, EnqueueArguments, EnqueueOptions, ResultOf, TaskMap } from "../tasks/task.js";
import { QueueTelemetry } from "../telemetry/queue-telemetry.js";
import { BulkEditor, type ChangeFilter, type ChangeOptions, type ChangeResult } from "./bulk-editor.js";
import { Drafts } from "./draft.js";
import { EnqueueObserver } from "./enqueue-observer.js";
import { type BeforeEnqueue, EnqueuePipeline, type EnqueueRequest } from "./enqueue-pipeline.js";
import { JobEditor } from "./job-editor.js";
import { Job, type JobOverrides, type JobOwner } from "./job-handle.js";
import { JobReader } from "./job-reader.js";
import { JobWaiter } from "./job-waiter.js";
import { type ListenOptions, type MapOptions, Results } from "./results.js";
import { Schedules } from "./schedules.js";
import type {
  EnqueueAnswer,
  EnqueueCall,
  Enqueued,
  EnqueueEntry,
  MapItem,
  MapResult,
  QueueCounters,
  QueueInfo,
} from "./types.js";

/**
 * A queue: enqueues jobs, waits for them, reads and changes them. Every call connects by itself. `saq.taskQueues.get`
 * returns a configured queue; `Queue.fromUrl` returns a queue of another program.
 *
 * @example
 * const queue = saq.taskQueues.get("default");
 * const job = await queue.enqueue("sendMail", { to: "ann@example.com" });
 */
export class Queue<Tasks extends TaskMap = TaskMap> {
  readonly name: string;
  /** The checked configuration. Not enumerable, because its dsn contains a password. */
  readonly config: QueueConfig<string, Tasks>;
  /** True if it accepts jobs of tasks that are not known here. No worker may run such a queue. */
  readonly isForeign: boolean;
  /** Storage; for the worker and for authors of brokers. */
  readonly broker: Broker;
  /** OpenTelemetry, for the worker. */
  readonly telemetry: QueueTelemetry;
  /** The queue's recurring tasks. */
  readonly schedules: Schedules;
  /** What happened to jobs through this object so far. */
  readonly counters: QueueCounters = {
    complete: 0,
    failed: 0,
    retried: 0,
    aborted: 0,
    started: Date.now(),
  };
  readonly #pipeline: EnqueuePipeline;
  readonly #waiter: JobWaiter;
  readonly #results: Results;
  readonly #reader: JobReader;
  readonly #editor: JobEditor;
  readonly #bulkEditor: BulkEditor;
  readonly #owner: JobOwner = {
    now: () => this.broker.now(),
    reload: (key) => this.#reader.reload(key),
    waitForEnd: (key, timeout) => this.#results.waitForEnd(key, timeout),
    abort: (key, error) => this.abort(key, error),
    retry: (key, options) => this.retry(key, options),
    delete: (key) => this.delete(key),
    runNow: (key) => this.runNow(key),
    update: (key, change) => this.update(key, change),
    enqueue: (job, overrides) => this.enqueue(job, overrides),
  };

  /**
   * `anyTask`: accepts task names that are not in the configuration, for queues whose workers are elsewhere. `logger`:
   * for changes by filter.
   *
   * @throws ConfigError if the configuration needs what the storage cannot do, or if `enableOtel` needs a package that
   *   is not installed
   */
  constructor(
    config: QueueConfig<string, Tasks>,
    broker: Broker,
    { logger = silentLogger, ...options }: { anyTask?: boolean; logger?: Logger } = {},
  ) {
    const toJob = (fields: JobFields) => new Job(this.#owner, fields);
    this.name = config.name;
    this.config = config;
    // Its dsn contains a password, and a whole queue is easily printed or logged.
    Object.defineProperty(this, "config", { enumerable: false });
    this.isForeign = options.anyTask === true;
    this.broker = broker;
    checkCapabilities(config, broker.capabilities);
    this.telemetry = new QueueTelemetry(config);
    const observer = new EnqueueObserver(config.name, this.telemetry);
    this.#pipeline = new EnqueuePipeline(
      broker,
      new Drafts(config, { ...options, capabilities: broker.capabilities }),
      observer,
    );
    this.#waiter = new JobWaiter(broker);
    this.#results = new Results(config.name, this.#pipeline, this.#waiter, toJob);
    this.#reader = new JobReader(config.name, broker, toJob);
    this.#editor = new JobEditor(broker, config.failedTtl, config.maxBytes, this.counters);
    this.#bulkEditor = new BulkEditor({
      queueName: config.name,
      broker,
      failedTtl: config.failedTtl,
      maxBytes: config.maxBytes,
      counters: this.counters,
      logger: neverThrowing(logger),
    });
    this.schedules = new Schedules({
      config,
      broker,
      observer,
      draft: async (request) => this.#pipeline.draft(request),
      traced: (draft, request) => this.#pipeline.traced(draft, request),
      enqueue: (task, payload, options) => (this as unknown as Queue).enqueue(task, payload, options),
    });
  }

  /**
   * Connects, and creates missing tables. Calls that need a connection do this themselves.
   *
   * @throws SaqError database_unavailable if the database does not answer
   * @throws SaqError queue_closed after `close` has closed the connections
   * @throws SaqError config, schema_version if the tables cannot be created or used
   * @throws the error of `pg` if the server refuses the connection, for instance because of a wrong password
   * @example
   * await queue.connect();
   */
  async connect(): Promise<void> {
    this.telemetry.refresh();
    await this.broker.connect();
  }

  /**
   * Ends all waits (they throw `queue_closed`), sends what is pending for up to 2 s, then closes the connections unless
   * another open queue shares them. A second call does nothing.
   *
   * @example
   * await queue.close();
   */
  async close(): Promise<void> {
    await this.#waiter.close();
    await this.broker.close();
  }

  // --- storing jobs ---

  /**
   * Stores a job. If you choose the key, the result is null while a job with this key is alive. If `target` is a job of
   * this queue (from `prepare`, or a finished one), that job is stored anew, with `overrides`; the object then shows
   * what was stored, and is unchanged if the result is null.
   *
   * @throws InvalidPayloadError (invalid_payload) if the task's schema refuses the payload
   * @throws InvalidJobError (invalid_job) if key, options or payload cannot be stored (also if a
   *   `registerBeforeEnqueue` hook changed them), or if the job belongs to another queue
   * @throws SaqError unknown_task if the queue has no such task
   * @throws SaqError key_held if another transaction holds the key for longer than 2 s
   * @throws SaqError database_unavailable if the database does not answer; the job may be stored all the same
   * @throws SaqError queue_closed, config or schema_version, as `connect` does
   * @throws the error of a `registerBeforeEnqueue` hook; with `client`, the errors of its `query`
   * @example
   * const job = await queue.enqueue("sendMail", { to: "ann@example.com" });
   * const once = await queue.enqueue("sendMail", { to: "bob@example.com" }, { key: "welcome:bob" }); // or null
   */
  enqueue<Target extends (keyof Tasks & string) | Job, Key extends string | undefined = undefined>(
    target: Target,
    ...args: EnqueueCall<Tasks, Target, Key>
  ): Promise<Enqueued<Tasks, Target, Key>>;
  async enqueue(target: string | Job, payload?: unknown, options: EnqueueOptions = {}): Promise<Job | null> {
    if (typeof target !== "string") return this.#pipeline.reenqueue(target, (payload ?? {}) as JobOverrides);
    const { fields, outcome } = await this.#pipeline.enqueue({ task: target, payload, options });
    return outcome.stored ? new Job(this.#owner, fields) : null;
  }

  /**
   * As `enqueue` with a task, but returns the reason if the job was refused.
   *
   * @throws the same errors as `enqueue`
   * @example
   * const answer = await queue.enqueueDetailed("sendMail", { to: "bob@example.com" }, { key: "welcome:bob" });
   * if (!answer.enqueued) console.log(answer.reason);
   */
  async enqueueDetailed<Name extends keyof Tasks & string>(
    task: Name,
    ...[payload, options = {}]: EnqueueArguments<Tasks[Name]>
  ): Promise<EnqueueAnswer<ResultOf<Tasks[Name]>>> {
    const { fields, outcome } = await this.#pipeline.enqueue({ task, payload, options });
    if (!outcome.stored) return { enqueued: false, reason: outcome.reason, key: fields.key };
    return { enqueued: true, job: new Job<ResultOf<Tasks[Name]>>(this.#owner, fields) };
  }

  /**
   * Stores many jobs, up to 2,000 per statement (1,000 with keys of your own). If one entry is invalid, nothing is
   * stored. Returns the jobs in the order of the entries, with null for each entry whose key was taken.
   *
   * @throws InvalidJobError, InvalidPayloadError, SaqError unknown_task or a hook's error, as `enqueue` does, and
   *   InvalidJobError for a `client`; nothing was stored
   * @throws SaqError key_held if another transaction holds one of the keys for longer than 2 s; other entries may be
   *   stored
   * @throws SaqError database_unavailable if the database does not answer; some or all entries may be stored
   * @throws SaqError queue_closed, config or schema_version, as `connect` does
   * @example
   * await queue.enqueueMany([
   *   { task: "sendMail", payload: { to: "ann@example.com" } },
   *   { task: "sendMail", payload: { to: "bob@example.com" }, priority: 1 },
   * ]);
   */
  async enqueueMany(entries: readonly EnqueueEntry<Tasks>[]): Promise<(Job | null)[]> {
    const stored = await this.#pipeline.enqueueMany(entries.map(requestOf));
    return stored.map(({ fields, outcome }) => (outcome.stored ? new Job(this.#owner, fields) : null));
  }

  /**
   * Returns a job that is not stored yet (status `new`), for `enqueue(job)` or `job.enqueue()`. The task's schema and
   * the sizes are checked when it is stored. It takes no `client`: pass it to `job.enqueue`.
   *
   * @throws InvalidJobError (invalid_job) if an option is invalid, or if the payload is not an object
   * @throws SaqError unknown_task if the queue has no such task
   * @example
   * const job = queue.prepare("sendMail", { to: "ann@example.com" });
   * await job.enqueue();
   */
  prepare<Name extends keyof Tasks & string>(
    task: Name,
    ...[payload, options = {}]: EnqueueArguments<Tasks[Name], Omit<EnqueueOptions, "client">>
  ): Job<ResultOf<Tasks[Name]>> {
    return new Job(this.#owner, this.#pipeline.prepare(task, payload, options));
  }

  /**
   * Calls `hook` with each job before this queue object stores it, also for jobs that are then refused. The hook may
   * change what a caller may choose: payload, meta, priority, times. Hooks run one after another; if one throws, the
   * job is not enqueued. Returns a function that unregisters the hook.
   *
   * @throws ConfigError (config) if `hook` is not a function
   * @example
   * const unregister = queue.registerBeforeEnqueue((job) => {
   *   job.meta.source = "import";
   * });
   */
  registerBeforeEnqueue(hook: BeforeEnqueue): () => void {
    return this.#pipeline.addHook(hook);
  }

  /**
   * Runs `work` and returns its result. If it throws, every job that this queue stored inside of it is aborted with the
   * error `cancelled`, and the error is thrown again. Await everything that `work` starts. A job that already runs is
   * asked to end.
   *
   * @throws the error of `work`
   * @throws SaqError not_aborted, with the error of `work` as its cause, if some jobs could not be aborted
   * @example
   * await queue.batch(async () => {
   *   await queue.enqueue("sendMail", { to: "ann@example.com" });
   *   await queue.enqueue("sendMail", { to: "bob@example.com" });
   * });
   */
  batch<T>(work: () => Promise<T>): Promise<T> {
    return this.#pipeline.batches.run(work, (job) => this.#editor.cancel(job));
  }

  // --- waiting for jobs ---

  /**
   * Enqueues a job, waits for its end and returns its result. If the key is taken, waits for the job that has it. A
   * task that applies another task keeps its own slot meanwhile: with only one slot, the other task never starts, and
   * the wait ends with the outer job's timeout.
   *
   * @throws JobError (job_failed), with the job, if it failed or was aborted
   * @throws JobGoneError (job_gone) if its row disappeared, so that nobody knows how it ended
   * @throws TimeoutError (timeout) after `waitTimeout`; the job goes on
   * @throws PoisonDocumentError (poison_document) if its stored document cannot be read
   * @throws InvalidJobError (invalid_job) also for an invalid `waitTimeout` or a `client`, and if the key belongs to a
   *   job of another task
   * @throws SaqError other_queue if the key belongs to another queue; queue_closed if the queue is closed during the
   *   wait; database_unavailable if the job cannot be read for 30 s
   * @throws the reason of `signal` if it fires; the job goes on
   * @throws the errors of `enqueue`
   * @example
   * const size = await queue.apply("resizeImage", { url: "https://example.com/a.png" }, { waitTimeout: 30 });
   */
  async apply<Name extends keyof Tasks & string>(
    task: Name,
    ...[payload, options]: EnqueueArguments<Tasks[Name], ApplyOptions>
  ): Promise<ResultOf<Tasks[Name]>> {
    return (await this.#results.apply(task, payload, options)) as ResultOf<Tasks[Name]>;
  }

  /**
   * `apply` for many payloads. Returns the results in the order of the payloads. The first job that fails rejects the
   * call at once and the others go on; with `returnExceptions`, the errors of jobs are in the list instead.
   *
   * @throws InvalidJobError (invalid_job) if two items have the same key, or if an item is invalid; nothing was stored
   * @throws JobError, JobGoneError, TimeoutError, PoisonDocumentError, InvalidJobError, InvalidPayloadError, SaqError
   *   or the signal's reason, as `apply` does
   * @example
   * const sizes = await queue.map("resizeImage", [{ url: firstUrl }, { url: secondUrl }], { waitTimeout: 60 });
   */
  async map<Name extends keyof Tasks & string, const ReturnExceptions extends boolean = false>(
    task: Name,
    payloads: readonly MapItem<Tasks[Name]>[],
    options?: MapOptions<MapItem<Tasks[Name]>> & { returnExceptions?: ReturnExceptions },
  ): Promise<MapResult<Tasks[Name], ReturnExceptions>[]> {
    const results = await this.#results.map(task, payloads, options as MapOptions<unknown>);
    return results as MapResult<Tasks[Name], ReturnExceptions>[];
  }

  /**
   * Calls `callback` for each of the jobs that exists: at once, at each push and every `pollInterval`, whether or not
   * something changed, until it returns something truthy. A promise that it returns is awaited.
   *
   * @throws TimeoutError (timeout) after `timeout`
   * @throws InvalidJobError (invalid_job) if an argument is invalid
   * @throws SaqError queue_closed if the queue is closed, also during the wait; database_unavailable if the jobs cannot
   *   be read for 30 s
   * @throws the error of `callback`
   * @example
   * await queue.listen([job.key], (_key, status) => status === "complete" || status === "failed");
   */
  listen(
    keys: readonly string[],
    callback: (key: string, status: Status) => unknown,
    options?: ListenOptions,
  ): Promise<void> {
    return this.#results.listen(keys, callback, options);
  }

  // --- looking at jobs ---

  /**
   * Returns the job as it is stored, or null if this queue has no job with this key. If the stored document cannot be
   * read, the job has the function `(unreadable)` and an `error` that says why.
   *
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const job = await queue.job("welcome:bob");
   */
  async job(key: string): Promise<Job | null> {
    return (await this.jobs([key]))[0] ?? null;
  }

  /**
   * Returns the jobs in the order of the keys, with null for unknown keys. Each is as `job` returns it.
   *
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const [first, second] = await queue.jobs(["welcome:ann", "welcome:bob"]);
   */
  jobs(keys: readonly string[]): Promise<(Job | null)[]> {
    return this.#reader.jobs(keys);
  }

  /**
   * Returns jobs of some statuses (by default of all), 50 unless `limit` says otherwise. The newest come first if all
   * of them fit into one page, or if the queue made their keys. Otherwise they are sorted by key, descending, because
   * no index has the time: a key of your own that begins with a letter comes before all generated keys. Use `iterJobs`
   * to read every job. With `task`, `keyPrefix`, `error`, `enqueuedAfter` or `enqueuedBefore`, the jobs with these
   * statuses are read one by one until the list is full, because no index has what is in a document.
   *
   * @throws SaqError list_too_slow after 5 s, for example for a rare status in a large table without the index for it
   * @throws InvalidJobError (invalid_job) if a condition is not a text or a time
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const failed = await queue.list({ statuses: ["failed"], limit: 20 });
   */
  list(filter: Partial<JobFilter> = {}): Promise<Job[]> {
    return this.#reader.list(filter);
  }

  /**
   * Yields every job of some statuses (by default of all), by key, `batchSize` (100) per query. No connection is held
   * while the caller works. Jobs that are stored meanwhile may or may not be included.
   *
   * @throws InvalidJobError (invalid_job) if `batchSize` is not a whole number >= 1
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * for await (const job of queue.iterJobs({ statuses: ["failed"] })) console.log(job.info());
   */
  iterJobs(
    options: { statuses?: readonly Status[]; batchSize?: number } = {},
  ): AsyncGenerator<Job, void, void> {
    return this.#reader.iterate(options);
  }

  /**
   * Returns the number of jobs by state, for all statuses. Reads the whole queue: 0.2 s for a million jobs.
   *
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const { queued, failed } = await queue.counts();
   */
  counts(): Promise<JobCounts> {
    return this.broker.counts();
  }

  /**
   * Returns one of SAQ's three counts: due, running, and all that is not finished. `aborting` jobs are in none of them.
   * Reads as much as `counts`.
   *
   * @throws SaqError config for another kind
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const running = await queue.count("active");
   */
  count(kind: "queued" | "active" | "incomplete"): Promise<number> {
    return this.#reader.count(kind);
  }

  /**
   * Returns the living workers of this queue, Python's too.
   *
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const alive = (await queue.workers()).map(({ workerId }) => workerId);
   */
  workers(): Promise<WorkerRow[]> {
    return this.broker.workers();
  }

  /**
   * Returns SAQ's info object. With `jobs: true` its member `jobs` contains the wire documents of up to 100 jobs: of
   * unfinished ones, unless `statuses` says otherwise.
   *
   * @throws SaqError list_too_slow, as `list` does
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const { queued, workers } = await queue.info();
   */
  info(options: Partial<JobFilter> & { jobs?: boolean } = {}): Promise<QueueInfo> {
    return this.#reader.info(options);
  }

  // --- changing jobs ---

  /**
   * Ends a waiting job (`aborted`), or asks a running job to end (`aborting`). Returns `not_active` if the job is
   * finished, null if there is no such job. `error` becomes the job's error.
   *
   * @throws InvalidJobError (invalid_job) if `error` is too large
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const answer = await queue.abort("welcome:bob");
   */
  abort(key: string, error = "aborted"): Promise<AbortAnswer | null> {
    return this.#editor.abort(key, error);
  }

  /**
   * Queues a finished job again, and resets its attempts unless `resetAttempts` is false. Returns `not_finished` while
   * the job waits or runs, `unreadable` if its document cannot be read, null if there is no such job. `error`
   * (`retried` if left out) becomes the job's error.
   *
   * @throws InvalidJobError (invalid_job) if `error` is too large
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const answer = await queue.retry("welcome:bob");
   */
  retry(key: string, options: { error?: string; resetAttempts?: boolean } = {}): Promise<RetryAnswer | null> {
    const { error = "retried", resetAttempts = true } = options;
    return this.#editor.retry(key, error, resetAttempts);
  }

  /**
   * Deletes a job that waits or is finished (`deleted`). Those who wait for it get JobGoneError. Returns `running`, and
   * changes nothing, if the job runs: abort it first. Returns null if there is no such job.
   *
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const answer = await queue.delete("welcome:bob");
   */
  delete(key: string): Promise<DeleteAnswer | null> {
    return this.#editor.delete(key);
  }

  /**
   * Makes a job due now that waits for its time (`due`): for its `scheduled` time, or for its next attempt. Returns
   * `already_due` if it was due before, `not_waiting` if it runs or is finished, `schedule` for a tick of a recurring
   * task (use `schedules.run`), `unreadable` if its document cannot be read, null if there is no such job.
   *
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * const answer = await queue.runNow("welcome:bob");
   */
  runNow(key: string): Promise<RunNowAnswer | null> {
    return this.#editor.runNow(key);
  }

  /**
   * Changes all jobs that match a filter: `retry`, `abort`, `delete` or `runNow`, as the calls for one job do. A job
   * for which the change is not possible is skipped, and counted with the reason. Jobs that are enqueued or finish
   * after the start of the call are not changed, so that a job that is retried and fails again is not retried twice.
   *
   * Works in pages of up to 500 jobs, by key on PostgreSQL. Rows are locked only while a page is written, for some ms.
   * A row that another transaction holds is skipped. `signal` stops after a page, and `cursor` goes on from there. Logs
   * one line at the end.
   *
   * On PostgreSQL, failed, aborted and running jobs are found by an index; for other statuses, the whole table is
   * walked. On Redis, jobs that Python workers have ended are not found, as in lists, and a job that goes back to the
   * queue while pages are read may be left out.
   *
   * @throws InvalidJobError (invalid_job) for an unknown action, if the filter or an option is not what it must be, or
   *   for a cursor of another filter or action
   * @throws SaqError database_unavailable if the database does not answer for 8 s; pages before are changed, and
   *   `onProgress` got their cursor
   * @throws SaqError queue_closed, config or schema_version, as `connect` does
   * @throws the error of `onProgress`
   * @example
   * const { changed } = await queue.changeMany({ task: "sendMail", error: "ECONNREFUSED" }, "retry");
   * const { matched } = await queue.changeMany({ statuses: ["failed"] }, "delete", { dryRun: true });
   */
  changeMany(filter: ChangeFilter, action: BulkAction, options?: ChangeOptions): Promise<ChangeResult> {
    return this.#bulkEditor.change(filter, action, options);
  }

  /**
   * Ends a running job from outside (`finished`). Its worker is notified that it lost the job, and what its task
   * returns is dropped. Returns `not_active` if the job waits or has ended, `aborting` if it is being aborted and
   * `status` is not `aborted`, null if there is no such job.
   *
   * @throws InvalidJobError (invalid_job) if the result or the error cannot be written as JSON or is too large, or for
   *   another status
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * await queue.finish("welcome:bob", "complete", { result: { sent: true } });
   */
  finish(
    key: string,
    status: TerminalStatus,
    outcome: { result?: unknown; error?: string } = {},
  ): Promise<FinishAnswer | null> {
    return this.#editor.finish(key, status, outcome);
  }

  /**
   * Sets single fields of a stored job, as `job.update` does, and returns the same. Null: there is no such job.
   *
   * @throws InvalidJobError (invalid_job) if there is no such field, or if a value is out of its range or too large
   * @throws SaqError job_held if another transaction holds the job for longer than 5 s
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `connect` does
   * @example
   * await queue.update("welcome:bob", { meta: { campaign: 7 } });
   */
  update(key: string, change: JobUpdate): Promise<UpdateAnswer | null> {
    return this.#editor.update(key, change);
  }
}

const noOptions: EnqueueOptions = Object.freeze({});

/**
 * Returns the request of an entry. Most entries have no options, and copying the rest of an object costs as much as
 * everything else that is done with the entry here.
 */
function requestOf(entry: { task: string; payload?: unknown } & EnqueueOptions): EnqueueRequest {
  for (const name in entry) {
    if (name === "task" || name === "payload") continue;
    const { task, payload, client, ...options } = entry;
    if (client !== undefined) {
      throw new InvalidJobError(
        `enqueueMany: the entry of task "${task}" has a client, but enqueueMany cannot store jobs in your own ` +
          "transaction; call enqueue(task, payload, { client }) for each job",
      );
    }
    return { task, payload, options };
  }
  return { task: entry.task, payload: entry.payload, options: noOptions };
}

/** @throws ConfigError if the configuration needs what the storage cannot do */
function checkCapabilities(
  { name, groupConcurrency, pollInterval, priorities }: QueueConfig,
  capabilities: Capabilities,
): void {
  const at = `defineQueue(${JSON.stringify(name)})`;
  if (pollInterval === 0) requireCapability(at, "push", capabilities);
  if (groupConcurrency !== 1) requireCapability(at, "groups", capabilities);
  const [lowest, highest] = priorities;
  if (lowest > 0 || highest < 0) requireCapability(at, "priorities", capabilities);
}
