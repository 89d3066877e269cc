/**
 * Handles a call of `enqueue` until its job is stored. Hooks may change the job first. If the call is made inside a
 * batch, the batch records the job.
 */

import type { Broker } from "../broker.js";
import type { JobFields } from "../core/job.js";
import { otelContextMember, withoutAttempts } from "../core/job-meta.js";
import type { EnqueueOutcome, NewJob } from "../core/new-job.js";
import { read } from "../core/stored-job.js";
import { ConfigError, InvalidJobError } from "../errors.js";
import type { EnqueueOptions } from "../tasks/task.js";
import type { Carrier } from "../telemetry/propagation.js";
import type { PublishedJob } from "../telemetry/telemetry.js";
import { Batches, type EnqueuedJob } from "./batch.js";
import type { Draft, Drafts } from "./draft.js";
import type { EnqueueObserver } from "./enqueue-observer.js";
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
   * Set if a caller waits for the end of the job. `replyTo`: the address to notify of the end (see
   * `Broker.openReplyChannel`), or null.
   */
  awaited?: { replyTo: string | null };
  /** Set if the job is part of a trace: the carrier that leads to it. */
  otelContext?: Carrier;
  /** Set if the row must remain after the end of the job: replaces a negative ttl, s. */
  replaceNegativeTtl?: number;
}

export interface Stored {
  fields: JobFields;
  outcome: EnqueueOutcome;
}

export class EnqueuePipeline {
  readonly batches = new Batches();
  readonly #broker: Broker;
  readonly #drafts: Drafts;
  readonly #observer: EnqueueObserver;
  /** True after the first connect. Calls then need not wait for the connection. */
  #isConnected = false;
  #hooks: readonly { call: BeforeEnqueue }[] = [];

  constructor(broker: Broker, drafts: Drafts, observer: EnqueueObserver) {
    this.#broker = broker;
    this.#drafts = drafts;
    this.#observer = observer;
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

  enqueue(request: EnqueueRequest): Promise<Stored> {
    if (!this.#isConnected) this.#observer.refresh();
    const { current } = this.batches;
    if (!current) return this.#storeOne(request);
    const drafts: Draft[] = [];
    const storing = this.#storeOne(request, drafts);
    current.include(
      this.#enqueuedJobs(
        drafts,
        storing.then((stored) => [stored]),
      ),
    );
    return storing;
  }

  /** Stores many jobs. If one of them is invalid, nothing is stored. */
  enqueueMany(requests: readonly EnqueueRequest[]): Promise<Stored[]> {
    if (!this.#isConnected) this.#observer.refresh();
    const { current } = this.batches;
    const drafts: Draft[] = [];
    const storing = this.#observer.isActive
      ? this.#observer.observe(requests, {
          store: (observed) => this.#enqueueAll(observed, drafts),
          published: publishedJob,
        })
      : this.#enqueueAll(requests, drafts);
    if (!current) return storing;
    current.include(this.#enqueuedJobs(drafts, storing));
    return storing;
  }

  /**
   * Returns the fields of a job that is not stored yet. Its payload is validated when it is stored.
   *
   * @throws InvalidJobError for a `client`, because nothing is stored yet
   */
  prepare(task: string, payload: unknown, options: EnqueueOptions): JobFields {
    if (options.client !== undefined) {
      throw new InvalidJobError(
        `prepare("${task}"): client has no effect here, because the job is not stored yet; ` +
          "pass it to job.enqueue({ client })",
      );
    }
    return { ...this.#drafts.fields(task, payload, options, this.#broker.now()), status: "new", queued: 0 };
  }

  /** Stores a job again under its key. The object is changed only if the job was stored. */
  async reenqueue(
    job: Job,
    { payload = job.kwargs ?? undefined, ...overrides }: JobOverrides,
  ): Promise<Job | null> {
    this.#drafts.checkQueue(job);
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
      meta: withoutAttempts(job.meta),
      ...overrides,
    };
    const { fields, outcome } = await this.enqueue({ task: job.function, payload, options });
    return outcome.stored ? Object.assign(job, fields) : null;
  }

  #storeOne(request: EnqueueRequest, drafts?: Draft[]): Promise<Stored> {
    return this.#observer.isActive ? this.#observeOne(request, drafts) : this.#enqueueOne(request, drafts);
  }

  async #observeOne(request: EnqueueRequest, drafts?: Draft[]): Promise<Stored> {
    const store = async ([observed = request]: readonly EnqueueRequest[]) => [
      await this.#enqueueOne(observed, drafts),
    ];
    const [stored] = await this.#observer.observe([request], { store, published: publishedJob });
    return stored as Stored;
  }

  /** Adds the draft to `drafts` before it stores the job. */
  async #enqueueOne(request: EnqueueRequest, drafts?: Draft[]): Promise<Stored> {
    const drafted = this.draft(request);
    const draft = drafted instanceof Promise ? await drafted : drafted;
    drafts?.push(draft);
    const { client } = request.options;
    const outcome = client
      ? await this.#broker.enqueueWith(client, draft.job)
      : await this.#broker.enqueue(draft.job);
    return { fields: draft.fields, outcome };
  }

  /** Adds the drafts to `drafts` before it stores the jobs. */
  async #enqueueAll(requests: readonly EnqueueRequest[], drafts: Draft[]): Promise<Stored[]> {
    let nowMs = this.#broker.now();
    for (const request of requests) {
      const drafted = this.draft(request, nowMs);
      if (drafted instanceof Promise) {
        drafts.push(await drafted);
        nowMs = this.#broker.now();
      } else drafts.push(drafted);
    }
    const outcomes = await this.#store(drafts.map(({ job }) => job));
    return drafts.map(({ fields }, index) => ({ fields, outcome: outcomes[index] as EnqueueOutcome }));
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
  draft(request: EnqueueRequest, nowMs = this.#broker.now()): Draft | Promise<Draft> {
    const validation = this.#drafts.validate(request.task, request.payload);
    if (validation || this.#hooks.length > 0 || !this.#isConnected)
      return this.#draftAsync(request, validation);
    return this.#completeDraft(request, this.#fields(request, nowMs));
  }

  async #draftAsync(request: EnqueueRequest, validation: Promise<unknown> | undefined): Promise<Draft> {
    await validation;
    await this.#broker.connect();
    this.#isConnected = true;
    const fields = this.#fields(request, this.#broker.now());
    if (this.#hooks.length > 0) await this.#callHooks(fields);
    return this.#completeDraft(request, fields);
  }

  #fields({ task, payload, options }: EnqueueRequest, nowMs: number): JobFields {
    return this.#drafts.fields(task, payload, options, nowMs);
  }

  #completeDraft(request: EnqueueRequest, fields: JobFields): Draft {
    const { options, awaited, replaceNegativeTtl, otelContext } = request;
    if (otelContext !== undefined) fields.meta = metaWith(fields, otelContext);
    if (awaited !== undefined) {
      // The worker reads in `awaited` which process to notify of the end. If the caller chose the key, others may know
      // it and wait too. In that case, and if there is no address, all listeners are notified. Otherwise only this
      // address is notified.
      fields.meta = { ...fields.meta, awaited: (options.key === undefined && awaited.replyTo) || true };
    }
    if (replaceNegativeTtl !== undefined && fields.ttl < 0) fields.ttl = replaceNegativeTtl;
    return { fields, job: this.#drafts.toNewJob(fields, options.key !== undefined) };
  }

  /** Returns the draft with the trace of a request for the same job. */
  traced(draft: Draft, { otelContext }: EnqueueRequest): Draft {
    if (otelContext === undefined) return draft;
    const fields = { ...draft.fields, meta: metaWith(draft.fields, otelContext) };
    return { fields, job: this.#drafts.toNewJob(fields, draft.job.keyed) };
  }

  async #callHooks(fields: JobFields): Promise<void> {
    // Copies, so that hooks do not change the caller's objects.
    fields.meta = { ...fields.meta };
    if (fields.kwargs) fields.kwargs = { ...fields.kwargs };
    const original = { ...fields };
    for (const { call } of this.#hooks) await call(fields);
    this.#drafts.checkHookChanges(fields, original);
    const validation = this.#drafts.validate(fields.function, fields.kwargs);
    if (validation) await validation;
  }

  /**
   * Returns the jobs that a batch must abort if it fails. If this call failed, some of its jobs may be stored anyway:
   * those whose row has the `queued` time of this call. A job with a generated key is also returned if its row was not
   * found, because no other job can have its key.
   */
  async #enqueuedJobs(drafts: readonly Draft[], storing: Promise<Stored[]>): Promise<EnqueuedJob[]> {
    try {
      return (await storing).filter(({ outcome }) => outcome.stored).map(({ fields }) => fields);
    } catch {
      const rows = await this.#broker.jobs(drafts.map(({ job }) => job.key)).catch(() => []);
      return drafts.flatMap(({ fields, job }, index) => {
        const row = rows[index];
        const isOurs = row ? read(row)?.queued === fields.queued : !job.keyed;
        return isOurs ? [fields] : [];
      });
    }
  }
}

const metaWith = ({ meta }: Pick<JobFields, "meta">, otelContext: Carrier): JobFields["meta"] => ({
  ...meta,
  [otelContextMember]: otelContext,
});

const publishedJob = ({ fields, outcome }: Stored): PublishedJob => ({
  key: fields.key,
  refused: outcome.stored ? null : outcome.reason,
});
