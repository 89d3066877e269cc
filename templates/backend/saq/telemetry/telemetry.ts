/**
 * The spans and metrics of one queue, by OpenTelemetry's conventions for messaging.
 *
 * A call that stores jobs is a span `publish QUEUE`, a bulk too. An attempt is a span `process QUEUE` from the call of
 * its first hook to the end of the attempt, so that claiming a job ahead makes no span. Its parent is the span that
 * published the job, in whatever context the worker claimed it.
 *
 * A settlement is a span `settle QUEUE`, a child of the span of the attempt. The conventions ask for it, and it is the
 * only span that shows that the end of an attempt was stored late or not at all.
 *
 * A claim has a metric and no span. The conventions ask for a span "receive" if the application itself fetches
 * messages; here it has a handler, which has the span "process". They forbid one for messages that are fetched ahead. A
 * span for each claim of an idle worker would also hide the traces of the jobs; pg-boss leaves it out too.
 */

import type { SettleResult } from "../broker.js";
import type { JobFields, Status } from "../core/job.js";
import { firstAttemptMember } from "../core/job-meta.js";
import type { MetaPatch } from "../core/wire.js";
import { attribute, errorType, operation, type QueueAddress } from "./conventions.js";
import { Metrics, type Observed } from "./metrics.js";
import {
  type Attributes,
  errorStatus,
  type OtelApi,
  type OtelContext,
  type Span,
  type SpanLink,
  scopeName,
  spanKind,
  type Tracer,
} from "./otel-api.js";
import { asLink, type Carrier, carrierOf, firstAttemptOf, originOf, traceparentOf } from "./propagation.js";

/** How an attempt ended. */
export interface AttemptOutcome {
  /** The status that is recorded; null if nothing is recorded, because the worker does not own the job any more. */
  status: Status | null;
  /** Why the attempt failed; undefined if it did not. */
  error: unknown;
}

/** The job of an attempt. */
type AttemptJob = Pick<JobFields, "key" | "function" | "attempts" | "meta">;

/** A job that a call of `enqueue` has passed to the queue. `refused`: why it was not stored, or null. */
export interface PublishedJob {
  key: string;
  refused: string | null;
}

export class Telemetry {
  readonly #api: OtelApi;
  readonly #queueName: string;
  readonly #tracer: Tracer;
  readonly #metrics: Metrics;
  readonly #publishing: Attributes;
  readonly #claiming: Attributes;
  readonly #processing: Attributes;
  readonly #settling: Attributes;

  constructor(api: OtelApi, queue: QueueAddress) {
    this.#api = api;
    this.#queueName = queue.name;
    this.#tracer = api.trace.getTracer(scopeName);
    this.#metrics = new Metrics(api, queue.name);
    this.#publishing = operation(queue, "publish");
    this.#claiming = operation(queue, "claim");
    this.#processing = operation(queue, "process");
    this.#settling = operation(queue, "settle");
  }

  /**
   * Calls `store` inside of a span. `store` gets the carrier to store with each job, or null. `tasks` are the names of
   * the jobs' tasks; `jobsOf` returns the jobs of what `store` has returned. `hasOwnTraces`: the attempts of the jobs
   * have a trace of their own, with a link to the span. Returns what `store` returns.
   *
   * @throws what `store` throws
   */
  async publish<Stored>(
    tasks: readonly string[],
    store: (carrier: Carrier | null) => Promise<Stored>,
    jobsOf: (stored: Stored) => readonly PublishedJob[],
    hasOwnTraces: boolean,
  ): Promise<Stored> {
    const { context, trace } = this.#api;
    const attributes: Attributes = { ...this.#publishing };
    if (tasks.length > 1) attributes[attribute.batchCount] = tasks.length;
    const [task] = tasks;
    if (task !== undefined && tasks.every((other) => other === task)) attributes[attribute.function] = task;
    const active = context.active();
    const options = { kind: spanKind.producer, attributes };
    const span = this.#tracer.startSpan(`publish ${this.#queueName}`, options, active);
    const inside = trace.setSpan(active, span);
    const startedAt = performance.now();
    let failure: Attributes = {};
    try {
      const stored = await context.with(inside, () => {
        const carrier = carrierOf(this.#api, inside);
        return store(carrier && hasOwnTraces ? asLink(carrier) : carrier);
      });
      span.setAttributes(outcomeOf(jobsOf(stored)));
      return stored;
    } catch (error) {
      failure = recordError(span, error);
      throw error;
    } finally {
      span.end();
      this.#metrics.published(secondsSince(startedAt), tasks.length, { ...this.#publishing, ...failure });
    }
  }

  /**
   * Calls `call`, which claims jobs, and records how long it takes. Returns what `call` returns.
   *
   * @throws what `call` throws
   */
  async claim<Claimed>(call: () => Promise<Claimed>): Promise<Claimed> {
    const startedAt = performance.now();
    let failure: Attributes = {};
    try {
      return await call();
    } catch (error) {
      failure = { [attribute.errorType]: errorType(error) };
      throw error;
    } finally {
      this.#metrics.called(secondsSince(startedAt), { ...this.#claiming, ...failure });
    }
  }

  /** Starts the span of an attempt. Its `end` must be called. */
  startAttempt({ key, function: task, attempts, meta }: AttemptJob, workerId: string): AttemptTrace {
    const { parent, creation } = originOf(this.#api, meta);
    const firstAttempt = firstAttemptOf(meta);
    const links: SpanLink[] = [];
    if (creation) links.push({ context: creation, attributes: { [attribute.link]: "publish" } });
    if (firstAttempt)
      links.push({ context: firstAttempt, attributes: { [attribute.link]: "first_attempt" } });
    const job = {
      [attribute.messageId]: key,
      [attribute.clientId]: workerId,
      [attribute.function]: task,
      [attribute.attempts]: attempts,
    };
    const options = { kind: spanKind.consumer, attributes: { ...this.#processing, ...job }, links };
    const span = this.#tracer.startSpan(`process ${this.#queueName}`, options, parent);
    this.#metrics.consumed(this.#processing);
    const inside = this.#api.trace.setSpan(parent, span);
    return new AttemptTrace(this.#api, this.#metrics, {
      span,
      inside,
      processing: this.#processing,
      settling: this.#settling,
      isFirst: firstAttempt === null,
      startSettling: (status) => {
        const attributes = { ...this.#settling, ...job, [attribute.status]: status };
        const settleOptions = { kind: spanKind.client, attributes };
        return this.#tracer.startSpan(`settle ${this.#queueName}`, settleOptions, inside);
      },
    });
  }

  /** Shows the state of a queue and its worker in gauges. Returns a function that ends this. */
  observe(observed: Observed): () => void {
    return this.#metrics.observe(observed);
  }

  /** Calls `call` without an active span: what it starts lives longer than the current span. */
  detached<Result>(call: () => Result): Result {
    return this.#api.context.with(this.#api.ROOT_CONTEXT, call);
  }
}

interface AttemptSpan {
  span: Span;
  /** The context in which the task runs. */
  inside: OtelContext;
  /** The attributes of the metrics of the attempt and of its settlement. */
  processing: Attributes;
  settling: Attributes;
  isFirst: boolean;
  /** Starts the span of the settlement. */
  startSettling(status: Status): Span;
}

/** The spans of one attempt and of its settlement. */
export class AttemptTrace {
  readonly #api: OtelApi;
  readonly #metrics: Metrics;
  readonly #attempt: AttemptSpan;
  readonly #startedAt = performance.now();
  #settlement: { span: Span; startedAt: number } | null = null;

  constructor(api: OtelApi, metrics: Metrics, attempt: AttemptSpan) {
    this.#api = api;
    this.#metrics = metrics;
    this.#attempt = attempt;
  }

  /** Calls the hooks and the task of the attempt, inside of its span. */
  run<Result>(call: () => Result): Result {
    return this.#api.context.with(this.#attempt.inside, call);
  }

  /** Returns the carrier of the context that is active now, inside of this attempt; null if there is none. */
  activeCarrier(): Carrier | null {
    return carrierOf(this.#api, this.#api.context.active());
  }

  /**
   * What to store in `meta` if the job runs again, so that the next attempts can link to this one; null if they link to
   * an earlier one, or if the span is not recorded.
   */
  get retryMeta(): MetaPatch | null {
    const { span, isFirst } = this.#attempt;
    const context = span.spanContext();
    if (!isFirst || !this.#api.trace.isSpanContextValid(context)) return null;
    return { [firstAttemptMember]: traceparentOf(context) };
  }

  /** Ends the span of the attempt. */
  end({ status, error }: AttemptOutcome): void {
    const { span, processing } = this.#attempt;
    if (status !== null) span.setAttributes({ [attribute.status]: status });
    const failure = error === undefined ? {} : recordError(span, error);
    span.end();
    this.#metrics.processed(secondsSince(this.#startedAt), { ...processing, ...failure });
  }

  /** Starts the span of the settlement. `settled` or `settleFailed` must be called. */
  startSettling(status: Status): void {
    this.#settlement = { span: this.#attempt.startSettling(status), startedAt: performance.now() };
  }

  settled(result: SettleResult): void {
    this.#settlement?.span.setAttributes({ [attribute.settlement]: result });
    this.#endSettlement({});
  }

  settleFailed(error: unknown): void {
    this.#endSettlement(this.#settlement ? recordError(this.#settlement.span, error) : {});
  }

  #endSettlement(failure: Attributes): void {
    if (!this.#settlement) return;
    const { span, startedAt } = this.#settlement;
    this.#settlement = null;
    span.end();
    this.#metrics.called(secondsSince(startedAt), { ...this.#attempt.settling, ...failure });
  }
}

/** `startedAt`: performance.now() */
const secondsSince = (startedAt: number): number => (performance.now() - startedAt) / 1_000;

/** Returns the attributes that show which jobs were stored. */
function outcomeOf(jobs: readonly PublishedJob[]): Attributes {
  const [job] = jobs;
  if (job && jobs.length === 1) {
    return job.refused === null
      ? { [attribute.messageId]: job.key }
      : { [attribute.messageId]: job.key, [attribute.refusal]: job.refused };
  }
  const refused = jobs.filter((each) => each.refused !== null).length;
  return refused > 0 ? { [attribute.refused]: refused } : {};
}

/** Marks a span as failed. Returns the attribute for its metrics. */
function recordError(span: Span, error: unknown): Attributes {
  const type = { [attribute.errorType]: errorType(error) };
  const exception = error instanceof Error ? error : String(error);
  span.recordException(exception);
  span.setAttributes(type);
  span.setStatus({ code: errorStatus, message: exception instanceof Error ? exception.message : exception });
  return type;
}
