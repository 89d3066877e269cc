/** A start while the database is away: after a reboot of both, or a deployment, the worker may be the quicker one. */
import { setTimeout as sleep } from "node:timers/promises";
import { doubled } from "../backoff.js";
import { describe, type Logger } from "../logger.js";
import type { Queue } from "../queue/queue.js";

export interface ConnectOptions {
  /** Waits for storage that is away, as the queue's `startTimeout` says. @defaultValue false */
  wait?: boolean;
  /** Ends the wait: the start is not wanted any more. */
  signal?: AbortSignal | undefined;
}

export interface StartWaiting extends Pick<ConnectOptions, "signal"> {
  logger: Logger;
  /** What is tried. @defaultValue the queue's own `connect` */
  connect?: () => Promise<unknown>;
}

/** 0.1 s doubling to 2 s: who waits for a start wants it soon after the database is there. */
const pauseMs = (attempt: number): number => doubled(attempt, 100, 2_000);

/**
 * Connects a queue, and tries again with pauses while storage is away. Resolves early, unconnected, when the signal
 * fires.
 *
 * @throws what the last try threw, when it is no outage or `startTimeout` is over
 */
export async function connectWithRetry(
  queue: Queue,
  { logger, signal, connect = () => queue.connect() }: StartWaiting,
): Promise<void> {
  const { startTimeout } = queue.config;
  const deadline = performance.now() + startTimeout * 1_000;
  for (let attempt = 0; !signal?.aborted; attempt++) {
    try {
      await connect();
      return;
    } catch (error) {
      const pause = pauseMs(attempt);
      if (!queue.broker.isOutage(error) || performance.now() + pause > deadline) throw error;
      if (attempt === 0)
        logger.info(
          { ...describe(error), queue: queue.name, upToSeconds: startTimeout },
          "waiting for the database",
        );
      // Rejects when the signal fires, which ends the loop.
      await sleep(pause, undefined, { signal }).catch(() => {});
    }
  }
}
