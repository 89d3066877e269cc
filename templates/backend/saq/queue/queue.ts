/** A queue: enqueue jobs, wait for them, look at them, change them. Knows its tasks' types, and nothing of storage. */

import type { Broker, JobCounts, JobFilter, WorkerRow } from "../broker.js";
import type { QueueConfig } from "../config/index.js";
import type { JobFields, Status, TerminalStatus } from "../job.js";
import type { ApplyOptions, EnqueueArguments, EnqueueOptions, ResultOf, TaskMap } from "../tasks/task.js";
import type { AbortAnswer, FinishAnswer, JobUpdate, RetryAnswer, UpdateAnswer } from "../transitions.js";
import type {
  EnqueueAnswer,
  EnqueueCall,
  Enqueued,
  EnqueueEntry,
  MapItem,
  MapResult,
  QueueCounters,
  QueueInfo,
} from "./answers.js";
import { Changes } from "./changes.js";
import { Drafts } from "./draft.js";
import { type BeforeEnqueue, Enqueuing, type Order } from "./enqueuing.js";
import { Job, type JobOverrides, type JobOwner } from "./handle.js";
import { Reading } from "./reading.js";
import { type ListenOptions, type MapOptions, Results } from "./results.js";
import { Schedules } from "./schedules.js";
import { Waiting } from "./waiting.js";

export class Queue<Tasks extends TaskMap = TaskMap> {
  readonly name: string;
  readonly config: QueueConfig<string, Tasks>;
  /** Takes jobs of tasks that are not known here, so that no worker may run it. */
  readonly isForeign: boolean;
  /** Storage; for the worker and for those who write a broker. */
  readonly broker: Broker;
  /** Its recurring tasks. */
  readonly schedules: Schedules;
  readonly counters: QueueCounters = {
    complete: 0,
    failed: 0,
    retried: 0,
    aborted: 0,
    started: Date.now(),
  };
  readonly #enqueuing: Enqueuing;
  readonly #waiting: Waiting;
  readonly #results: Results;
  readonly #reading: Reading;
  readonly #changes: Changes;
  readonly #owner: JobOwner = {
    now: () => this.broker.now(),
    reload: (key) => this.#reading.reload(key),
    ended: (key, timeout) => this.#results.ended(key, timeout),
    abort: (key, error) => this.abort(key, error),
    retry: (key, options) => this.retry(key, options),
    update: (key, change) => this.update(key, change),
    enqueue: (job, overrides) => this.enqueue(job, overrides),
  };

  /** `anyTask`: takes names that are not in the configuration, for queues whose workers are elsewhere. */
  constructor(config: QueueConfig<string, Tasks>, broker: Broker, options: { anyTask?: boolean } = {}) {
    const toJob = (fields: JobFields) => new Job(this.#owner, fields);
    this.name = config.name;
    this.config = config;
    // Its dsn holds a password, and a queue is soon printed or logged whole.
    Object.defineProperty(this, "config", { enumerable: false });
    this.isForeign = options.anyTask === true;
    this.broker = broker;
    this.#enqueuing = new Enqueuing(broker, new Drafts(config, options));
    this.#waiting = new Waiting(broker);
    this.#results = new Results(config.name, this.#enqueuing, this.#waiting, toJob);
    this.#reading = new Reading(config.name, broker, toJob);
    this.#changes = new Changes(broker, config.failedTtl, config.maxBytes, this.counters);
    this.schedules = new Schedules({
      config,
      broker,
      draft: async (order) => this.#enqueuing.draft(order),
      enqueue: (task, payload, given) => (this as unknown as Queue).enqueue(task, payload, given),
    });
  }

  /** Connects and makes the tables where they are missing. Every call that needs it does so by itself. */
  async connect(): Promise<void> {
    await this.broker.connect();
  }

  /** Ends all waits, sends what is under way, then closes the connections. */
  async close(): Promise<void> {
    await this.#waiting.close();
    await this.broker.close();
  }

  // --- storing jobs ---

  /**
   * Stores a job. With a key of your own the answer is null while a job of that key is alive (V-5.3). Given a job of
   * this queue (from `prepare`, or a finished one), stores that one anew, with `overrides`; the object then shows what
   * was stored, and is unchanged when the answer is null (Q-3, D-32).
   *
   * @throws InvalidPayloadError when the task's schema refuses the payload
   * @throws InvalidJobError when key, options or payload cannot be stored, or the job belongs to another queue
   */
  enqueue<Target extends (keyof Tasks & string) | Job, Key extends string | undefined = undefined>(
    target: Target,
    ...args: EnqueueCall<Tasks, Target, Key>
  ): Promise<Enqueued<Tasks, Target, Key>>;
  async enqueue(target: string | Job, payload?: unknown, options: EnqueueOptions = {}): Promise<Job | null> {
    if (typeof target !== "string") return this.#enqueuing.again(target, (payload ?? {}) as JobOverrides);
    const { fields, outcome } = await this.#enqueuing.one({ task: target, payload, options });
    return outcome.stored ? new Job(this.#owner, fields) : null;
  }

  /** As `enqueue`, with the reason of a refusal. */
  async enqueueDetailed<Name extends keyof Tasks & string>(
    task: Name,
    ...[payload, options = {}]: EnqueueArguments<Tasks[Name]>
  ): Promise<EnqueueAnswer<ResultOf<Tasks[Name]>>> {
    const { fields, outcome } = await this.#enqueuing.one({ task, payload, options });
    if (!outcome.stored) return { enqueued: false, reason: outcome.reason, key: fields.key };
    return { enqueued: true, job: new Job<ResultOf<Tasks[Name]>>(this.#owner, fields) };
  }

  /**
   * Stores many jobs, up to a thousand per statement. Nothing is stored when one entry is invalid. Null stands where a
   * key was taken.
   *
   * @throws InvalidJobError, InvalidPayloadError as `enqueue` does; nothing was stored
   * @throws SaqError key_held when somebody's open transaction holds one of the keys; other entries may be stored
   */
  async enqueueMany(entries: readonly EnqueueEntry<Tasks>[]): Promise<(Job | null)[]> {
    const orders = entries.map(orderOf);
    const stored = await this.#enqueuing.many(orders);
    return stored.map(({ fields, outcome }) => (outcome.stored ? new Job(this.#owner, fields) : null));
  }

  /** A job that is not stored yet (status `new`), for `enqueue(job)` or `job.enqueue()`. */
  prepare<Name extends keyof Tasks & string>(
    task: Name,
    ...[payload, options = {}]: EnqueueArguments<Tasks[Name]>
  ): Job<ResultOf<Tasks[Name]>> {
    return new Job(this.#owner, this.#enqueuing.prepare(task, payload, options));
  }

  /**
   * Calls `hook` with each job before this queue object stores it, also for jobs that are then refused. It may
   * change what a caller may choose: payload, meta, priority, times. Hooks run one after another, and a throw stops the
   * enqueue. Answers how to unregister.
   */
  registerBeforeEnqueue(hook: BeforeEnqueue): () => void {
    return this.#enqueuing.before(hook);
  }

  /**
   * Runs `work`; when it throws, every job that this queue stored inside of it is aborted with the error `cancelled`,
   * and the throw goes on (Q-7, D-60). Await everything that `work` starts. A job that runs already is told to end.
   *
   * @throws SaqError not_aborted, caused by what `work` threw, when some could not be aborted
   */
  batch<T>(work: () => Promise<T>): Promise<T> {
    return this.#enqueuing.batches.run(work, (job) => this.#changes.cancel(job));
  }

  // --- waiting for jobs ---

  /**
   * Enqueues a job and waits for its result. With a key that is taken, waits for the job that has it. A task that
   * applies another one holds its own slot meanwhile: with one slot in all, the other never starts and the wait ends
   * with the outer job's timeout.
   *
   * @throws JobError, carrying the job, when it failed or was aborted
   * @throws JobGoneError when its row disappeared, so that nobody knows how it ended (D-66)
   * @throws TimeoutError after `waitTimeout`; the job goes on
   */
  async apply<Name extends keyof Tasks & string>(
    task: Name,
    ...[payload, options]: EnqueueArguments<Tasks[Name], ApplyOptions>
  ): Promise<ResultOf<Tasks[Name]>> {
    return (await this.#results.apply(task, payload, options)) as ResultOf<Tasks[Name]>;
  }

  /**
   * `apply` for many payloads: results in their order. The first job that fails rejects at once and the others go
   * on; with `returnExceptions`, errors of jobs stand in the list instead.
   *
   * @throws InvalidJobError when two items have one key (D-68); nothing was stored
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
   * Calls `callback` for each of the jobs that exists, at once, at each push and every `pollInterval`, whether or not
   * something changed, until it answers something truthy.
   *
   * @throws TimeoutError after `timeout`
   */
  listen(
    keys: readonly string[],
    callback: (key: string, status: Status) => unknown,
    options?: ListenOptions,
  ): Promise<void> {
    return this.#results.listen(keys, callback, options);
  }

  // --- looking at jobs ---

  /** The job, or null when this queue has none of that key. */
  async job(key: string): Promise<Job | null> {
    return (await this.jobs([key]))[0] ?? null;
  }

  /** In the order of the keys, null for unknown ones (P-27). */
  jobs(keys: readonly string[]): Promise<(Job | null)[]> {
    return this.#reading.jobs(keys);
  }

  /**
   * Jobs of some statuses, 50 unless `limit` says otherwise. Newest first where all fit into one page, or where the
   * queue made their keys. Else they are sorted by key, descending, because no index has the time: a key of your own
   * that begins with a letter comes before all generated ones. To read every job use `iterJobs`.
   *
   * @throws SaqError list_too_slow after 5 s, for instance a rare status in a large table without the index for it
   * @example
   * const failed = await queue.list({ statuses: ["failed"], limit: 20 });
   */
  list(filter: Partial<JobFilter> = {}): Promise<Job[]> {
    return this.#reading.list(filter);
  }

  /**
   * Every job of some statuses, by key, `batchSize` per query; no connection is held while the caller works (P-28).
   * Jobs that are stored meanwhile may or may not come along.
   */
  iterJobs(
    options: { statuses?: readonly Status[]; batchSize?: number } = {},
  ): AsyncGenerator<Job, void, void> {
    return this.#reading.iterate(options);
  }

  /** Jobs by state, all statuses. Reads the whole queue: 0.2 s for a million jobs. */
  counts(): Promise<JobCounts> {
    return this.broker.counts();
  }

  /** SAQ's three counts (P-32): due, running, and all that is not finished (`aborting` is in none). */
  count(kind: "queued" | "active" | "incomplete"): Promise<number> {
    return this.#reading.count(kind);
  }

  /** Live workers. */
  workers(): Promise<WorkerRow[]> {
    return this.broker.workers();
  }

  /** SAQ's info object (P-33, D-72). `jobs` holds wire documents, unfinished ones unless `statuses` says otherwise. */
  info(options: Partial<JobFilter> & { jobs?: boolean } = {}): Promise<QueueInfo> {
    return this.#reading.info(options);
  }

  // --- changing jobs ---

  /**
   * Ends a waiting job, tells a running one to end (V-5.10, V-5.11). Null when there is no such job (D-27).
   *
   * @throws SaqError job_held when somebody's transaction holds the job for longer than 5 s
   */
  abort(key: string, error = "aborted"): Promise<AbortAnswer | null> {
    return this.#changes.abort(key, error);
  }

  /**
   * Queues a finished job again, with its attempts set back unless told otherwise (D-26). Null when there is none.
   *
   * @throws SaqError job_held when somebody's transaction holds the job for longer than 5 s
   */
  retry(key: string, options: { error?: string; resetAttempts?: boolean } = {}): Promise<RetryAnswer | null> {
    const { error = "retried", resetAttempts = true } = options;
    return this.#changes.retry(key, error, resetAttempts);
  }

  /**
   * Ends a running job from outside; its worker is told that it lost the job, and what its task returns is dropped.
   * `not_active` when it waits or has ended, `aborting` when it is being aborted and `status` is another than `aborted`
   * (D-25), null when there is none.
   *
   * @throws InvalidJobError when the result cannot be written as JSON
   */
  finish(
    key: string,
    status: TerminalStatus,
    outcome: { result?: unknown; error?: string } = {},
  ): Promise<FinishAnswer | null> {
    return this.#changes.finish(key, status, outcome);
  }

  /** Sets single fields of a stored job, as `job.update` does (J-20). Null when there is none (D-27). */
  update(key: string, change: JobUpdate): Promise<UpdateAnswer | null> {
    return this.#changes.update(key, change);
  }
}

const noOptions: EnqueueOptions = Object.freeze({});

/** Most entries have no options, and taking what is left of an object costs as much as all else that is done with it here. */
function orderOf(entry: { task: string; payload?: unknown } & EnqueueOptions): Order {
  for (const name in entry) {
    if (name === "task" || name === "payload") continue;
    const { task, payload, ...options } = entry;
    return { task, payload, options };
  }
  return { task: entry.task, payload: entry.payload, options: noOptions };
}
