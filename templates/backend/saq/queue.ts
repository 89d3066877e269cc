/** A queue: enqueue jobs, look at them, abort and retry them. Knows its tasks' types, and nothing of storage. */
import type {
  Broker,
  EnqueueOutcome,
  JobCounts,
  JobFilter,
  Refusal,
  StoredJob,
  WorkerRow,
} from "./broker.js";
import type { QueueConfig } from "./config/index.js";
import { type Draft, Drafts } from "./draft.js";
import { JobGoneError, SaqError } from "./errors.js";
import { Job, type JobOwner } from "./handle.js";
import { type JobFields, jobDefaults, type Status, statuses } from "./job.js";
import type { EnqueueArguments, EnqueueOptions, PayloadOf, ResultOf, TaskMap } from "./task.js";
import { type AbortAnswer, abortJob, type RetryAnswer, read, retryJob } from "./transitions.js";

type TaskName<Tasks extends TaskMap> = keyof Tasks & string;
type WithoutKey = Omit<EnqueueOptions, "key"> & { key?: undefined };

/** What became of an enqueue, with the reason of a refusal (D-31). */
export type EnqueueAnswer<Result = unknown> =
  | { enqueued: true; job: Job<Result> }
  | { enqueued: false; reason: Refusal; key: string };

/** One entry of `enqueueMany`. */
export type EnqueueEntry<Tasks extends TaskMap> = {
  [Name in TaskName<Tasks>]: { task: Name } & PayloadMember<Tasks[Name]> & Omit<EnqueueOptions, "client">;
}[TaskName<Tasks>];
type PayloadMember<T> = [PayloadOf<T>] extends [never]
  ? { payload?: unknown }
  : undefined extends PayloadOf<T>
    ? { payload?: PayloadOf<T> }
    : { payload: PayloadOf<T> };

/** SAQ's view of a queue (P-33), with all counts. */
export interface QueueInfo {
  name: string;
  queued: number;
  active: number;
  scheduled: number;
  counts: JobCounts;
  workers: Record<string, { stats: object; metadata: object | null; queue_key: string }>;
  jobs: Record<string, unknown>[];
}

export class Queue<Tasks extends TaskMap = TaskMap> {
  readonly name: string;
  readonly config: QueueConfig<string, Tasks>;
  /** Storage; for the worker and for those who write a broker. */
  readonly broker: Broker;
  readonly #drafts: Drafts;
  readonly #owner: JobOwner = {
    reload: (key) => this.#reload(key),
    abort: (key, error) => this.abort(key, error),
    retry: (key, options) => this.retry(key, options),
  };

  constructor(config: QueueConfig<string, Tasks>, broker: Broker) {
    this.name = config.name;
    this.config = config;
    this.broker = broker;
    this.#drafts = new Drafts(config);
  }

  /** Connects and makes the tables where they are missing. Every call that needs it does so by itself. */
  async connect(): Promise<void> {
    await this.broker.connect();
  }

  /** Sends what is under way, then closes the connections. */
  close(): Promise<void> {
    return this.broker.close();
  }

  /**
   * Stores a job. With a key of your own the answer is null while a job of that key is alive (V-5.3).
   *
   * @throws InvalidPayloadError when the task's schema refuses the payload
   * @throws InvalidJobError when key, options or payload cannot be stored
   */
  enqueue<Name extends TaskName<Tasks>>(
    task: Name,
    ...args: EnqueueArguments<Tasks[Name], WithoutKey>
  ): Promise<Job<ResultOf<Tasks[Name]>>>;
  enqueue<Name extends TaskName<Tasks>>(
    task: Name,
    ...args: EnqueueArguments<Tasks[Name]>
  ): Promise<Job<ResultOf<Tasks[Name]>> | null>;
  async enqueue(task: string, payload?: unknown, options?: EnqueueOptions): Promise<Job | null> {
    const answer = await this.#enqueue(task, payload, options);
    return answer.enqueued ? answer.job : null;
  }

  /** As `enqueue`, with the reason of a refusal. */
  async enqueueDetailed<Name extends TaskName<Tasks>>(
    task: Name,
    ...[payload, options]: EnqueueArguments<Tasks[Name]>
  ): Promise<EnqueueAnswer<ResultOf<Tasks[Name]>>> {
    return (await this.#enqueue(task, payload, options)) as EnqueueAnswer<ResultOf<Tasks[Name]>>;
  }

  /**
   * Stores many jobs, up to a thousand per statement. Nothing is stored when one entry is invalid. Null stands where a
   * key was taken.
   *
   * @throws InvalidJobError, InvalidPayloadError as `enqueue` does; nothing was stored
   * @throws SaqError key_held when somebody's open transaction holds one of the keys; other entries may be stored
   */
  async enqueueMany(entries: readonly EnqueueEntry<Tasks>[]): Promise<(Job | null)[]> {
    const made: Draft[] = [];
    for (const { task, payload, ...options } of entries) made.push(await this.#make(task, payload, options));
    const outcomes = await this.broker.enqueueMany(made.map(({ job }) => job));
    return made.map(({ fields }, index) => (outcomes[index]?.stored ? new Job(this.#owner, fields) : null));
  }

  /** The job, or null when this queue has none of that key. */
  async job(key: string): Promise<Job | null> {
    return (await this.jobs([key]))[0] ?? null;
  }

  /** In the order of the keys, null for unknown ones (P-27). */
  async jobs(keys: readonly string[]): Promise<(Job | null)[]> {
    const rows = await this.broker.jobs(keys);
    return rows.map((row) => row && this.#toJob(row));
  }

  /** Jobs of some statuses, newest first. */
  async list({
    statuses: wanted = statuses,
    offset = 0,
    limit = 50,
    due,
  }: Partial<JobFilter> = {}): Promise<Job[]> {
    const rows = await this.broker.list({ statuses: wanted, offset, limit, due });
    return rows.map((row) => this.#toJob(row));
  }

  /** Jobs by state, all statuses. Reads the whole queue: 0.2 s for a million jobs. */
  counts(): Promise<JobCounts> {
    return this.broker.counts();
  }

  /** SAQ's three counts (P-32): due, running, and all that is not finished (`aborting` is in none). */
  async count(kind: "queued" | "active" | "incomplete"): Promise<number> {
    const { queued, active, scheduled } = await this.counts();
    switch (kind) {
      case "queued":
        return queued;
      case "active":
        return active;
      case "incomplete":
        return queued + scheduled + active;
      default:
        throw new SaqError(
          "config",
          `count takes "queued", "active" or "incomplete", got "${kind satisfies never}"`,
        );
    }
  }

  /** Live workers. */
  workers(): Promise<WorkerRow[]> {
    return this.broker.workers();
  }

  /** SAQ's info object (P-33, D-72). `jobs` holds wire documents, unfinished ones unless `statuses` says otherwise. */
  async info({
    jobs = false,
    statuses: wanted = ["queued", "active", "aborting"],
    offset = 0,
    limit = 100,
    due,
  }: Partial<JobFilter> & { jobs?: boolean } = {}): Promise<QueueInfo> {
    const [counts, workers, listed] = await Promise.all([
      this.counts(),
      this.workers(),
      jobs ? this.list({ statuses: wanted, offset, limit, due }) : [],
    ]);
    return {
      name: this.name,
      queued: counts.queued,
      active: counts.active,
      scheduled: counts.scheduled,
      counts,
      workers: Object.fromEntries(
        workers.map(({ workerId, stats, metadata, queueKey }) => [
          workerId,
          { stats, metadata, queue_key: queueKey },
        ]),
      ),
      jobs: listed.map((job) => job.toDocument()),
    };
  }

  /**
   * Ends a waiting job, tells a running one to end (V-5.10, V-5.11). Null when there is no such job (D-27).
   *
   * @throws SaqError job_held when somebody's transaction holds the job for longer than 5 s
   */
  abort(key: string, error = "aborted"): Promise<AbortAnswer | null> {
    return this.broker.change(key, (row) => abortJob(row, error, this.broker.now(), this.config.failedTtl));
  }

  /**
   * Queues a finished job again, with its attempts set back unless told otherwise (D-26). Null when there is none.
   *
   * @throws SaqError job_held when somebody's transaction holds the job for longer than 5 s
   */
  retry(key: string, options: { error?: string; resetAttempts?: boolean } = {}): Promise<RetryAnswer | null> {
    const { error = "retried", resetAttempts = true } = options;
    return this.broker.change(key, (row) => retryJob(row, error, this.broker.now(), resetAttempts));
  }

  async #reload(key: string): Promise<JobFields> {
    const [row] = await this.broker.jobs([key]);
    const fields = row ? read(row) : null;
    if (!fields) throw new JobGoneError(key);
    return fields;
  }

  #toJob(row: StoredJob): Job {
    return new Job(this.#owner, read(row) ?? unreadable(row));
  }

  async #enqueue(task: string, payload: unknown, options: EnqueueOptions = {}): Promise<EnqueueAnswer> {
    const { fields, job } = await this.#make(task, payload, options);
    const outcome: EnqueueOutcome = options.client
      ? await this.broker.enqueueWith(options.client, job)
      : await this.broker.enqueue(job);
    return outcome.stored
      ? { enqueued: true, job: new Job(this.#owner, fields) }
      : { enqueued: false, reason: outcome.reason, key: job.key };
  }

  /** Refuses what is invalid before anything connects. */
  async #make(name: string, payload: unknown, options: EnqueueOptions): Promise<Draft> {
    const checked = this.#drafts.check(name, payload);
    if (checked) await checked;
    await this.broker.connect();
    return this.#drafts.make(name, payload, options, this.broker.now());
  }
}

/** A poison row for the eye: what its columns tell, and why there is no more. */
function unreadable(row: StoredJob): JobFields {
  return {
    ...jobDefaults,
    function: "(unreadable)",
    queueName: row.queue,
    key: row.key,
    status: row.status satisfies Status,
    scheduled: row.scheduled,
    error: "The stored document is not a SAQ job; its bytes are untouched in saq_jobs.job",
    meta: {},
  };
}
