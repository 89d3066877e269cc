/** Runs the workers of some queues in this process, until a request to stop. */
import type { Queue } from "../queue/queue.js";
import {
  type ConnectOptions,
  connectWithRetry,
  runWorkerProcess,
  Worker,
  type WorkerProcessEnd,
  type WorkerProcessOptions,
} from "../worker/index.js";
import type { Saq } from "./create-saq.js";

/**
 * Runs the workers of `queues` in this process until a request to stop, then closes `saq`. Only these queues are
 * connected. If queues are named, they run here even when their worker usually runs inside the web process.
 *
 * @param names the names that the user gave; empty if none
 */
export function runQueues(
  saq: Saq,
  queues: readonly Queue[],
  names: readonly string[],
  options: Omit<WorkerProcessOptions, "logger" | "queues"> = {},
): Promise<WorkerProcessEnd> {
  const { logger } = saq;
  const host = {
    connect: async ({ signal }: ConnectOptions) => {
      await Promise.all(queues.map((queue) => connectWithRetry(queue, { logger, signal })));
    },
    workers: () => queues.map((queue) => new Worker(queue, { logger })),
    close: () => saq.close(),
  };
  return runWorkerProcess(host, { ...options, logger, ...(names.length > 0 && { queues: names }) });
}
