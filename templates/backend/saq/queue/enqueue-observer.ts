/** Publishes calls that store jobs to the subscribers of the channel `saq:enqueue`. */
import { type EnqueueMessage, enqueueChannel } from "../telemetry/channels.js";
import type { EnqueueRequest, Stored } from "./enqueue-pipeline.js";

export class EnqueueObserver {
  constructor(private readonly queueName: string) {}

  /** True if calls must go through `observe`. */
  get isActive(): boolean {
    return enqueueChannel.hasSubscribers;
  }

  /** Calls `store` with the requests and returns what it returns. */
  async observe(
    requests: readonly EnqueueRequest[],
    store: (requests: readonly EnqueueRequest[]) => Promise<Stored[]>,
  ): Promise<Stored[]> {
    let stored: Stored[] = [];
    const message: EnqueueMessage = { queue: this.queueName, jobs: requests.map(publicPart) };
    await enqueueChannel.tracePromise(async () => {
      stored = await store(requests);
      return stored.map(({ fields, outcome }) => ({
        key: fields.key,
        refused: outcome.stored ? null : outcome.reason,
      }));
    }, message);
    return stored;
  }
}

const publicPart = ({ task, payload, options }: EnqueueRequest): EnqueueMessage["jobs"][number] => ({
  task,
  payload,
  options,
});
