/** Runs workers as a process: handles signals and uncaught errors, and returns the exit code. */
import { describe, type Logger, neverThrowing } from "../logger.js";
import type { ConnectOptions } from "./connect-with-retry.js";
import type { Worker } from "./worker.js";

export interface WorkerHost {
  connect(options: ConnectOptions): Promise<void>;
  /** @throws SaqError unknown_queue */
  workers(options: { logger: Logger; queues?: readonly string[] | undefined }): Worker[];
  close(): Promise<void>;
}

/** Options of `runWorkers`. */
export interface RunWorkersOptions {
  /** Logger of the workers and their tasks. */
  logger: Logger;
  /** Names of the queues to work on. @defaultValue the queues whose worker does not run in the web process */
  queues?: readonly string[];
  /**
   * The process is restarted on each save: SIGTERM gives running jobs 1 s, so that an edit is live in about 2 s.
   * @defaultValue false
   */
  reloader?: boolean;
  /** Called with the reason if a worker cannot start. @defaultValue logs it */
  onStartError?: (error: unknown) => void;
}

/** Time for the last log lines to leave the process. */
const logFlushMs = 300;
/**
 * Signals within this time count as one: Ctrl-C reaches a process several times, from the terminal's process group,
 * from npm and from concurrently.
 */
const repeatedSignalMs = 2_000;
const reloadGraceSeconds = 1;
/** SIGBREAK is Ctrl-Break on Windows; it is not sent on other systems. */
const stopSignals = ["SIGINT", "SIGTERM", "SIGBREAK"] as const;

/**
 * Runs the queues' workers until SIGINT, SIGTERM or SIGBREAK, or until the burst of all of them is over. Returns the
 * exit code: 0, or 1 after an uncaught error or if a worker cannot start. After an uncaught error the running jobs
 * count as lost, because one of them may have caused it; jobs that were only claimed go back uncounted. A signal more
 * than 2 s after the first one ends the grace period. If a task still runs after its hard deadline, the process is
 * ended a moment later: otherwise the open handles of the task would keep the process alive for ever. Closes `saq` at
 * the end.
 *
 * @throws SaqError unknown_queue if a name in `queues` is not a queue; nothing else, unless `onStartError` throws
 * @example
 * process.exitCode = await runWorkers(saq, { logger: saq.logger });
 */
export async function runWorkers(
  saq: WorkerHost,
  { logger: givenLogger, queues, reloader = false, onStartError }: RunWorkersOptions,
): Promise<number> {
  const logger = neverThrowing(givenLogger);
  let workers: Worker[] = [];
  const runningKeys = () => workers.flatMap((worker) => worker.runningKeys);
  let exitCode = 0;
  /** performance.now() */
  let firstSignalAt: number | null = null;
  let isStopping = false;
  /** Cancels a start that waits for the database. */
  const startAbort = new AbortController();
  let stop: (grace?: number) => void = () => {};
  const stopped = new Promise<number | undefined>((resolve) => {
    stop = (grace) => {
      isStopping = true;
      startAbort.abort();
      resolve(grace);
    };
  });
  const endGracePeriods = () => {
    for (const worker of workers) worker.hurry();
  };
  const onSignal = (signal: NodeJS.Signals) => {
    if (firstSignalAt === null) {
      firstSignalAt = performance.now();
      logger.info({ signal }, "stopping: running jobs may finish");
      stop(reloader && signal === "SIGTERM" ? reloadGraceSeconds : undefined);
    } else if (performance.now() - firstSignalAt > repeatedSignalMs) {
      logger.warn({ signal }, "second signal: running jobs are cancelled and go back into the queue");
      endGracePeriods();
    }
  };
  const onRejection = (reason: unknown) => {
    logger.error(
      { err: reason, jobs: runningKeys() },
      "unhandled promise rejection: no code handled the failure of a promise",
    );
  };
  const onException = (error: Error) => {
    logger.error(
      { err: error, jobs: runningKeys() },
      "uncaught error: the worker stops, and its running jobs count as lost",
    );
    exitCode = 1;
    for (const worker of workers) void worker.crash();
    stop(0);
  };
  const removeListeners = () => {
    for (const signal of stopSignals) process.off(signal, onSignal);
    process.off("unhandledRejection", onRejection);
    process.off("uncaughtException", onException);
  };
  for (const signal of stopSignals) process.on(signal, onSignal);
  process.on("unhandledRejection", onRejection);
  process.on("uncaughtException", onException);
  try {
    workers = workersOf(saq, logger, queues);
  } catch (error) {
    removeListeners();
    throw error;
  }
  try {
    const start = async () => {
      await saq.connect({ wait: true, signal: startAbort.signal });
      if (!isStopping) await Promise.all(workers.map((worker) => worker.start()));
    };
    const started = start();
    const finished = started.then(() => Promise.all(workers.map((worker) => worker.finished)));
    // A signal also ends the start, because a database that does not respond can delay it for many seconds.
    const grace = await Promise.race([stopped, finished.then(() => undefined)]);
    await Promise.all(workers.map((worker) => worker.stop({ grace })));
  } catch (error) {
    if (onStartError) onStartError(error);
    else logger.error(describe(error), "the worker could not start");
    exitCode = 1;
    await Promise.allSettled(workers.map((worker) => worker.stop({ grace: 0 })));
  } finally {
    await saq.close().catch((error: unknown) => logger.error({ err: error }, "could not close the queues"));
    removeListeners();
  }
  if (workers.some((worker) => worker.overdueKeys.length > 0)) {
    setTimeout(() => process.exit(exitCode), logFlushMs).unref();
  }
  return exitCode;
}

/** Returns the workers of the named queues; without names, all except those that the web process runs. */
function workersOf(saq: WorkerHost, logger: Logger, queues: readonly string[] | undefined): Worker[] {
  const all = saq.workers({ logger, queues });
  if (queues) return all;
  const separate = all.filter(({ hasSeparateProcess, queueName: queue }) => {
    if (hasSeparateProcess) return true;
    logger.info(
      { queue },
      "not run in this process: the web process runs the worker of this queue (separateProcess: false)",
    );
    return false;
  });
  if (separate.length === 0) logger.warn({}, "no queue needs a worker in this process, so it stops");
  return separate;
}
