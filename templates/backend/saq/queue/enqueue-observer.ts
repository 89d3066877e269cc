/**
 * Shows calls that store jobs to observers: as spans of OpenTelemetry, and to the subscribers of the channel
 * `saq:enqueue`.
 */
import { type EnqueueMessage, enqueueChannel } from "../telemetry/channels.js";
import type { QueueTelemetry } from "../telemetry/queue-telemetry.js";
import type { PublishedJob } from "../telemetry/telemetry.js";
import type { EnqueueRequest, Stored } from "./enqueue-pipeline.js";

type Store = (requests: readonly EnqueueRequest[]) => Promise<Stored[]>;

export class EnqueueObserver {
  constructor(
    private readonly queueName: string,
    private readonly telemetry: QueueTelemetry,
  ) {}

  /** True if calls must go through `observe`. */
  get isActive(): boolean {
    return this.telemetry.current !== null || enqueueChannel.hasSubscribers;
  }

  /** Called before the queue connects: OpenTelemetry may have been started since the last call. */
  refresh(): void {
    this.telemetry.refresh();
  }

  /** Calls `store` with the requests and returns what it returns. The requests may get a trace to store. */
  observe(requests: readonly EnqueueRequest[], store: Store): Promise<Stored[]> {
    const { current } = this.telemetry;
    if (!current || requests.length === 0) return this.#publish(requests, store);
    return current.publish(
      requests.map(({ task }) => task),
      (otelContext) => {
        const traced = otelContext ? requests.map((request) => ({ ...request, otelContext })) : requests;
        return this.#publish(traced, store);
      },
      (stored) => stored.map(publishedJob),
    );
  }

  async #publish(requests: readonly EnqueueRequest[], store: Store): Promise<Stored[]> {
    if (!enqueueChannel.hasSubscribers) return store(requests);
    let stored: Stored[] = [];
    const message: EnqueueMessage = { queue: this.queueName, jobs: requests.map(callersPart) };
    await enqueueChannel.tracePromise(async () => {
      stored = await store(requests);
      return stored.map(publishedJob);
    }, message);
    return stored;
  }
}

/** Returns what the caller passed for one job. */
const callersPart = ({ task, payload, options }: EnqueueRequest): EnqueueMessage["jobs"][number] => ({
  task,
  payload,
  options,
});

const publishedJob = ({ fields, outcome }: Stored): PublishedJob => ({
  key: fields.key,
  refused: outcome.stored ? null : outcome.reason,
});
