/** Runs workers as a process: signals, stray errors, exit code. */
import type { Logger } from "../logger.js";
import type { Worker } from "./worker.js";

export interface WorkerHost {
  connect(): Promise<void>;
  workers(options: { logger: Logger }): Worker[];
  close(): Promise<void>;
}

export interface RunWorkersOptions {
  logger: Logger;
  /** Restarted on each save: SIGTERM leaves running jobs 1 s, so that an edit is live in about two. */
  reloader?: boolean;
}

/** Ctrl-C reaches a process several times: by the terminal's group, by npm, by concurrently. They are one. */
const repeatMs = 2_000;
const reloadGraceSeconds = 1;

/**
 * Runs every queue's worker until SIGINT or SIGTERM and answers the exit code: 0 after a signal, 1 after an uncaught
 * error or when the database cannot be reached at the start. A signal more than 2 s after the first ends the grace
 * period (W-22). Throws nothing.
 */
export async function runWorkers(
  saq: WorkerHost,
  { logger, reloader = false }: RunWorkersOptions,
): Promise<number> {
  let workers: Worker[] = [];
  let exitCode = 0;
  let firstSignalAt = 0;
  let stop: (grace?: number) => void = () => {};
  const stopped = new Promise<number | undefined>((resolve) => {
    stop = resolve;
  });
  const onSignal = (signal: NodeJS.Signals) => {
    if (firstSignalAt === 0) {
      firstSignalAt = Date.now();
      logger.info({ signal }, "stopping: running jobs may finish");
      stop(reloader && signal === "SIGTERM" ? reloadGraceSeconds : undefined);
    } else if (Date.now() - firstSignalAt > repeatMs) {
      logger.warn({ signal }, "second signal: running jobs are cancelled and go back into the queue");
      for (const worker of workers) worker.hurry();
    }
  };
  const onRejection = (reason: unknown) => {
    logger.error(
      { err: reason, jobs: workers.flatMap((worker) => worker.runningKeys) },
      "a promise was rejected and nobody handled it",
    );
  };
  const onException = (error: Error) => {
    logger.error(
      { err: error, jobs: workers.flatMap((worker) => worker.runningKeys) },
      "uncaught error, the worker ends",
    );
    exitCode = 1;
    stop(0);
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  process.on("unhandledRejection", onRejection);
  process.on("uncaughtException", onException);
  try {
    await saq.connect();
    workers = saq.workers({ logger });
    await Promise.all(workers.map((worker) => worker.start()));
    const grace = await stopped;
    await Promise.all(workers.map((worker) => worker.stop({ grace })));
  } catch (error) {
    logger.error({ err: error }, "the worker could not start");
    exitCode = 1;
    await Promise.allSettled(workers.map((worker) => worker.stop({ grace: 0 })));
  } finally {
    await saq.close();
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
    process.off("unhandledRejection", onRejection);
    process.off("uncaughtException", onException);
  }
  return exitCode;
}
