/**
 * Handles a call of `enqueue` until its job is stored. Hooks may change the job first. If the call is made inside a
 * batch, the batch records the job.
 */

import type { Broker } from "../broker.js";
import type { JobFields } from "../core/job.js";
import { withoutCounts } from "../core/job-meta.js";
import type { EnqueueOutcome, NewJob } from "../core/new-job.js";
import { read } from "../core/stored-job.js";
import { ConfigError } from "../errors.js";
import type { EnqueueOptions } from "../tasks/task.js";
import { Batches, type StoredMark } from "./batch.js";
import type { Draft, Drafts } from "./draft.js";
import type { Job, JobOverrides } from "./job-handle.js";

/** A job that is about to be stored, as hooks see it. Fields that a caller may choose can be changed. */
export type NewJobFields = Readonly<Pick<JobFields, "function" | "queueName" | "key" | "queued" | "status">> &
  Pick<
    JobFields,
    | "kwargs"
    | "timeout"
    | "heartbeat"
    | "retries"
    | "ttl"
    | "retryDelay"
    | "retryBackoff"
    | "scheduled"
    | "priority"
    | "groupKey"
    | "meta"
  >;

/** Called before each job is stored, one hook after another. If a hook throws, the job is not enqueued. */
export type BeforeEnqueue = (job: NewJobFields) => unknown;

/** One job that is to be stored. */
export interface EnqueueRequest {
  task: string;
  payload: unknown;
  options: EnqueueOptions;
  /**
   * Set if a caller waits for the end of the job. `keep`: replaces a negative ttl, s. `at`: the address to notify of
   * the end (see `Broker.openReplyChannel`), or null.
   */
  awaited?: { keep: number; at: string | null };
  /** Replaces a negative ttl, s. */
  minTtl?: number;
}

export interface Stored {
  fields: JobFields;
  outcome: EnqueueOutcome;
}

export class EnqueuePipeline {
  readonly batches = new Batches();
  readonly #broker: Broker;
  readonly #drafts: Drafts;
  /** True after the first connect. Calls then need not wait for the connection. */
  #isConnected = false;
  #hooks: readonly { call: BeforeEnqueue }[] = [];

  constructor(broker: Broker, drafts: Drafts) {
    this.#broker = broker;
    this.#drafts = drafts;
  }

  /**
   * Registers a hook. Returns a function that unregisters this registration, because the same hook may be registered
   * twice.
   *
   * @throws ConfigError if it is not a function
   */
  addHook(call: BeforeEnqueue): () => void {
    if (typeof call !== "function") {
      throw new ConfigError(`registerBeforeEnqueue takes a function (job) => ..., got ${typeof call}`);
    }
    const registered = { call };
    this.#hooks = [...this.#hooks, registered];
    return () => {
      this.#hooks = this.#hooks.filter((hook) => hook !== registered);
    };
  }

  one(order: EnqueueRequest): Promise<Stored> {
    const { current } = this.batches;
    if (!current) return this.#one(order);
    const made: Draft[] = [];
    const storing = this.#one(order, made);
    current.include(
      this.#marks(
        made,
        storing.then((stored) => [stored]),
      ),
    );
    return storing;
  }

  /** Stores many jobs. If one of them is invalid, nothing is stored. */
  many(orders: readonly EnqueueRequest[]): Promise<Stored[]> {
    const { current } = this.batches;
    if (!current) return this.#many(orders);
    const made: Draft[] = [];
    const storing = this.#many(orders, made);
    current.include(this.#marks(made, storing));
    return storing;
  }

  /** Returns the fields of a job that is not stored yet. Its payload is validated when it is stored. */
  prepare(task: string, payload: unknown, options: EnqueueOptions): JobFields {
    return { ...this.#drafts.fields(task, payload, options, this.#broker.now()), status: "new", queued: 0 };
  }

  /** Stores a job again under its key. The object is changed only if the job was stored. */
  async reenqueue(
    job: Job,
    { payload = job.kwargs ?? undefined, ...overrides }: JobOverrides,
  ): Promise<Job | null> {
    this.#drafts.checkOwn(job);
    const { key, timeout, heartbeat, retries, ttl, retryDelay, retryBackoff, scheduled, priority, groupKey } =
      job;
    const options: EnqueueOptions = {
      key,
      timeout,
      heartbeat,
      retries,
      ttl,
      retryDelay,
      retryBackoff,
      // With a time in the past, for example that of the last retry, the job would be refused until its old row
      // expires.
      scheduled: scheduled * 1_000 > this.#broker.now() ? scheduled : 0,
      priority,
      ...(groupKey === null ? {} : { groupKey }),
      meta: withoutCounts(job.meta),
      ...overrides,
    };
    const { fields, outcome } = await this.one({ task: job.function, payload, options });
    return outcome.stored ? Object.assign(job, fields) : null;
  }

  async #one(order: EnqueueRequest, made?: Draft[]): Promise<Stored> {
    const drafted = this.draft(order);
    const draft = drafted instanceof Promise ? await drafted : drafted;
    made?.push(draft);
    const { client } = order.options;
    const outcome = client
      ? await this.#broker.enqueueWith(client, draft.job)
      : await this.#broker.enqueue(draft.job);
    return { fields: draft.fields, outcome };
  }

  async #many(orders: readonly EnqueueRequest[], made: Draft[] = []): Promise<Stored[]> {
    let nowMs = this.#broker.now();
    for (const order of orders) {
      const drafted = this.draft(order, nowMs);
      if (drafted instanceof Promise) {
        made.push(await drafted);
        nowMs = this.#broker.now();
      } else made.push(drafted);
    }
    const outcomes = await this.#store(made.map(({ job }) => job));
    return made.map(({ fields }, index) => ({ fields, outcome: outcomes[index] as EnqueueOutcome }));
  }

  async #store(jobs: readonly NewJob[]): Promise<EnqueueOutcome[]> {
    if (this.#broker.capabilities.bulk) return this.#broker.enqueueMany(jobs);
    const outcomes: EnqueueOutcome[] = [];
    for (const job of jobs) outcomes.push(await this.#broker.enqueue(job));
    return outcomes;
  }

  /**
   * Checks the task and the payload before it connects. Returns a promise only if it must wait for something. `nowMs`
   * is the time of the enqueue, epoch ms. A job that waits gets the time after the wait instead.
   */
  draft(order: EnqueueRequest, nowMs = this.#broker.now()): Draft | Promise<Draft> {
    const checked = this.#drafts.check(order.task, order.payload);
    if (checked || this.#hooks.length > 0 || !this.#isConnected) return this.#draftLater(order, checked);
    return this.#sealed(order, this.#fields(order, nowMs));
  }

  async #draftLater(order: EnqueueRequest, checked: Promise<unknown> | undefined): Promise<Draft> {
    await checked;
    await this.#broker.connect();
    this.#isConnected = true;
    const fields = this.#fields(order, this.#broker.now());
    if (this.#hooks.length > 0) await this.#callHooks(fields);
    return this.#sealed(order, fields);
  }

  #fields({ task, payload, options }: EnqueueRequest, nowMs: number): JobFields {
    return this.#drafts.fields(task, payload, options, nowMs);
  }

  #sealed({ options, awaited, minTtl }: EnqueueRequest, fields: JobFields): Draft {
    if (awaited !== undefined) {
      // The worker reads in `awaited` which process to notify of the end. If the caller chose the key, others may know
      // it and wait too. In that case, and if there is no address, all listeners are notified. Otherwise only this
      // address is notified.
      fields.meta = { ...fields.meta, awaited: (options.key === undefined && awaited.at) || true };
      // If the row were deleted at the end of the job, the caller could not read the result.
      if (fields.ttl < 0) fields.ttl = awaited.keep;
    }
    if (minTtl !== undefined && fields.ttl < 0) fields.ttl = minTtl;
    return { fields, job: this.#drafts.seal(fields, options.key !== undefined) };
  }

  async #callHooks(fields: JobFields): Promise<void> {
    // Copies, so that hooks do not change the caller's objects.
    fields.meta = { ...fields.meta };
    if (fields.kwargs) fields.kwargs = { ...fields.kwargs };
    const before = { ...fields };
    for (const { call } of this.#hooks) await call(fields);
    this.#drafts.checkChanged(fields, before);
    const checked = this.#drafts.check(fields.function, fields.kwargs);
    if (checked) await checked;
  }

  /**
   * Returns the jobs that a batch must abort if it fails. If this call failed, some of its jobs may be stored anyway:
   * those whose row has the `queued` time of this call. A job with a generated key is also returned if its row was not
   * found, because no other job can have its key.
   */
  async #marks(made: readonly Draft[], storing: Promise<Stored[]>): Promise<StoredMark[]> {
    try {
      return (await storing).filter(({ outcome }) => outcome.stored).map(({ fields }) => fields);
    } catch {
      const rows = await this.#broker.jobs(made.map(({ job }) => job.key)).catch(() => []);
      return made.flatMap(({ fields, job }, index) => {
        const row = rows[index];
        const isOurs = row ? read(row)?.queued === fields.queued : !job.keyed;
        return isOurs ? [fields] : [];
      });
    }
  }
}
