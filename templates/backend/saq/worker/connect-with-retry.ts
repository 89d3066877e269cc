/**
 * Connects a queue although the database may not be reachable yet: after a reboot of both, or a deployment, the worker
 * may be ready first.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { doubled } from "../core/backoff.js";
import { describe, type Logger } from "../logger.js";
import type { Queue } from "../queue/queue.js";

/** Options of `saq.connect`. */
export interface ConnectOptions {
  /** Waits for storage that is unreachable, for at most the queue's `startTimeout` (s). @defaultValue false */
  wait?: boolean;
  /** Ends the wait, because the start is no longer wanted. @defaultValue none */
  signal?: AbortSignal | undefined;
}

export interface ConnectRetryOptions extends Pick<ConnectOptions, "signal"> {
  logger: Logger;
  /** The call that is retried. @defaultValue the queue's own `connect` */
  connect?: () => Promise<unknown>;
}

/** 0.1 s, doubled up to 2 s: the worker should start soon after the database is reachable. */
const pauseMs = (previousTries: number): number => doubled(previousTries, 100, 2_000);

/**
 * Connects a queue, and retries with pauses while storage is unreachable. Resolves early, without a connection, when
 * the signal fires.
 *
 * @throws the error of the last try, if it is no outage or `startTimeout` is over
 */
export async function connectWithRetry(
  queue: Queue,
  { logger, signal, connect = () => queue.connect() }: ConnectRetryOptions,
): Promise<void> {
  const { startTimeout } = queue.config;
  const deadline = performance.now() + startTimeout * 1_000;
  for (let previousTries = 0; !signal?.aborted; previousTries++) {
    try {
      await connect();
      return;
    } catch (error) {
      const pause = pauseMs(previousTries);
      if (!queue.broker.isOutage(error) || performance.now() + pause > deadline) throw error;
      if (previousTries === 0)
        logger.info(
          { ...describe(error), queue: queue.name, upToSeconds: startTimeout },
          "waiting for the database",
        );
      // Rejects when the signal fires, which ends the loop.
      await sleep(pause, undefined, { signal }).catch(() => {});
    }
  }
}
