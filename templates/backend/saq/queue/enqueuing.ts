/** From a call of `enqueue` to a stored job: hooks change it, the scope of a batch takes note of it. */

import type { Broker } from "../broker.js";
import { ConfigError } from "../errors.js";
import type { JobFields } from "../job.js";
import type { EnqueueOutcome } from "../new-job.js";
import type { EnqueueOptions } from "../tasks/task.js";
import { read, withoutCounts } from "../transitions.js";
import { Batches, type StoredMark } from "./batch.js";
import type { Draft, Drafts } from "./draft.js";
import type { Job, JobOverrides } from "./handle.js";

/** A job about to be stored, as hooks see it: what a caller may choose may be changed. */
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

/** Called before each job is stored, one hook after another. A throw stops the enqueue. */
export type BeforeEnqueue = (job: NewJobFields) => unknown;

/** One job to be stored. */
export interface Order {
  task: string;
  payload: unknown;
  options: EnqueueOptions;
  /** Somebody waits for its end: seconds that its result is kept at least, and where its end is told (`answers`). */
  awaited?: { keep: number; at: string | null };
  /** In place of a negative ttl, s. */
  leastTtl?: number;
}

export interface Stored {
  fields: JobFields;
  outcome: EnqueueOutcome;
}

export class Enqueuing {
  readonly batches = new Batches();
  readonly #broker: Broker;
  readonly #drafts: Drafts;
  /** Calls need not wait for the way to the database. */
  #isConnected = false;
  #hooks: readonly { call: BeforeEnqueue }[] = [];

  constructor(broker: Broker, drafts: Drafts) {
    this.#broker = broker;
    this.#drafts = drafts;
  }

  /** Answers how to unregister: by the registration, not by the function, which may be registered twice (D-62). */
  before(call: BeforeEnqueue): () => void {
    if (typeof call !== "function") {
      throw new ConfigError(`registerBeforeEnqueue takes a function (job) => ..., got ${typeof call}`);
    }
    const registered = { call };
    this.#hooks = [...this.#hooks, registered];
    return () => {
      this.#hooks = this.#hooks.filter((hook) => hook !== registered);
    };
  }

  one(order: Order): Promise<Stored> {
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

  /** Nothing is stored when one of them is invalid. */
  many(orders: readonly Order[]): Promise<Stored[]> {
    const { current } = this.batches;
    if (!current) return this.#many(orders);
    const made: Draft[] = [];
    const storing = this.#many(orders, made);
    current.include(this.#marks(made, storing));
    return storing;
  }

  /** The fields of a job that is not stored yet; checked when it is. */
  prepare(task: string, payload: unknown, options: EnqueueOptions): JobFields {
    return { ...this.#drafts.fields(task, payload, options, this.#broker.now()), status: "new", queued: 0 };
  }

  /** Stores a job under its key. The object changes only when it was stored (D-32). */
  async again(
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
      // A time that has passed, say of the last run's retry, would refuse the job until its row expires (V-5.2).
      scheduled: scheduled * 1_000 > this.#broker.now() ? scheduled : 0,
      priority,
      ...(groupKey === null ? {} : { groupKey }),
      meta: withoutCounts(job.meta),
      ...overrides,
    };
    const { fields, outcome } = await this.one({ task: job.function, payload, options });
    return outcome.stored ? Object.assign(job, fields) : null;
  }

  async #one(order: Order, made?: Draft[]): Promise<Stored> {
    const drafted = this.draft(order);
    const draft = drafted instanceof Promise ? await drafted : drafted;
    made?.push(draft);
    const { client } = order.options;
    const outcome = client
      ? await this.#broker.enqueueWith(client, draft.job)
      : await this.#broker.enqueue(draft.job);
    return { fields: draft.fields, outcome };
  }

  async #many(orders: readonly Order[], made: Draft[] = []): Promise<Stored[]> {
    for (const order of orders) {
      const drafted = this.draft(order);
      made.push(drafted instanceof Promise ? await drafted : drafted);
    }
    const outcomes = await this.#broker.enqueueMany(made.map(({ job }) => job));
    return made.map(({ fields }, index) => ({ fields, outcome: outcomes[index] as EnqueueOutcome }));
  }

  /** Refuses what is invalid before anything connects. A promise only where something is to be waited for. */
  draft(order: Order): Draft | Promise<Draft> {
    const checked = this.#drafts.check(order.task, order.payload);
    if (checked || this.#hooks.length > 0 || !this.#isConnected) return this.#draftLater(order, checked);
    return this.#sealed(order, this.#fields(order));
  }

  async #draftLater(order: Order, checked: Promise<unknown> | undefined): Promise<Draft> {
    await checked;
    await this.#broker.connect();
    this.#isConnected = true;
    const fields = this.#fields(order);
    if (this.#hooks.length > 0) await this.#callHooks(fields);
    return this.#sealed(order, fields);
  }

  #fields({ task, payload, options }: Order): JobFields {
    return this.#drafts.fields(task, payload, options, this.#broker.now());
  }

  #sealed({ options, awaited, leastTtl }: Order, fields: JobFields): Draft {
    if (awaited !== undefined) {
      // What the worker goes by to tell that it ended: to all who listen where others may know the key and wait too.
      fields.meta = { ...fields.meta, awaited: (options.key === undefined && awaited.at) || true };
      // A result that is gone at once could never be awaited (D-66).
      if (fields.ttl < 0) fields.ttl = awaited.keep;
    }
    if (leastTtl !== undefined && fields.ttl < 0) fields.ttl = leastTtl;
    return { fields, job: this.#drafts.seal(fields, options.key !== undefined) };
  }

  async #callHooks(fields: JobFields): Promise<void> {
    // The caller's own objects stay as they are.
    fields.meta = { ...fields.meta };
    if (fields.kwargs) fields.kwargs = { ...fields.kwargs };
    const before = { ...fields };
    for (const { call } of this.#hooks) await call(fields);
    this.#drafts.checkChanged(fields, before);
    const checked = this.#drafts.check(fields.function, fields.kwargs);
    if (checked) await checked;
  }

  /**
   * What a batch has to answer for. When the call failed, some of its jobs may be stored all the same: those whose row
   * has this call's own time.
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
