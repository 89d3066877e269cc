/**
 * Shows calls that store jobs to observers: as spans of OpenTelemetry, and to the subscribers of the channel
 * `saq:enqueue`.
 */
import { type EnqueueMessage, enqueueChannel } from "../telemetry/channels.js";
import { asLink, type Carrier } from "../telemetry/propagation.js";
import type { QueueTelemetry } from "../telemetry/queue-telemetry.js";
import type { PublishedJob } from "../telemetry/telemetry.js";
import type { EnqueueRequest } from "./enqueue-pipeline.js";

/** A call that stores jobs. */
export interface ObservedCall<Stored> {
  /** Stores the jobs. The requests may have got a trace to store. */
  store(requests: readonly EnqueueRequest[]): Promise<Stored[]>;
  /** Returns what observers see of a job that `store` has returned. */
  published(stored: Stored): PublishedJob;
  /** True if the attempts of the jobs have a trace of their own. @defaultValue if there are several jobs */
  hasOwnTraces?: boolean;
}

export class EnqueueObserver {
  constructor(
    private readonly queueName: string,
    private readonly telemetry: QueueTelemetry,
  ) {}

  /** True if calls must go through `observe`. */
  get isActive(): boolean {
    const { current, threadCarrier } = this.telemetry;
    return current !== null || enqueueChannel.hasSubscribers || threadCarrier !== undefined;
  }

  /** Called before the queue connects: OpenTelemetry may have been started since the last call. */
  refresh(): void {
    this.telemetry.refresh();
  }

  /** Stores the jobs of a call and returns what its `store` returns. */
  observe<Stored>(requests: readonly EnqueueRequest[], call: ObservedCall<Stored>): Promise<Stored[]> {
    const { current, threadCarrier } = this.telemetry;
    const { hasOwnTraces = requests.length > 1 } = call;
    const inherited = threadCarrier && hasOwnTraces ? asLink(threadCarrier) : threadCarrier;
    if (!current || requests.length === 0) return this.#publish(withContext(requests, inherited), call);
    return current.publish(
      requests.map(({ task }) => task),
      (otelContext) => this.#publish(withContext(requests, otelContext ?? inherited), call),
      (stored) => stored.map(call.published),
      hasOwnTraces,
    );
  }

  async #publish<Stored>(
    requests: readonly EnqueueRequest[],
    { store, published }: ObservedCall<Stored>,
  ): Promise<Stored[]> {
    if (!enqueueChannel.hasSubscribers) return store(requests);
    let stored: Stored[] = [];
    const message: EnqueueMessage = { queue: this.queueName, jobs: requests.map(callersPart) };
    await enqueueChannel.tracePromise(async () => {
      stored = await store(requests);
      return stored.map(published);
    }, message);
    return stored;
  }
}

const withContext = (
  requests: readonly EnqueueRequest[],
  otelContext: Carrier | undefined,
): readonly EnqueueRequest[] =>
  otelContext ? requests.map((request) => ({ ...request, otelContext })) : requests;

/** Returns what the caller passed for one job. */
const callersPart = ({ task, payload, options }: EnqueueRequest): EnqueueMessage["jobs"][number] => ({
  task,
  payload,
  options,
});
