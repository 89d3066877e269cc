/** Runs workers as a process: handles requests to stop and uncaught errors, and returns the exit code. */
import { describe, type Logger, neverThrowing } from "../logger.js";
import type { ConnectOptions } from "./connect-with-retry.js";
import { type StopListener, type StopSource, signalSource } from "./stop-signals.js";
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

/** What a process that another process has started needs in addition. */
export interface WorkerProcessOptions extends RunWorkersOptions {
  /** Requests to stop, besides the signals of this process. @defaultValue none */
  stopSource?: StopSource;
  /** Called when all workers take jobs. @defaultValue none */
  onReady?: () => void;
}

/** How the workers of a process ended. */
export interface WorkerProcessEnd {
  exitCode: number;
  /** True if all workers ended by themselves, as after a burst: no request to stop and no error ended them. */
  isFinished: boolean;
}

/** Time for the last log lines to leave the process. */
const logFlushMs = 300;

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
export async function runWorkers(saq: WorkerHost, options: RunWorkersOptions): Promise<number> {
  const { exitCode } = await runWorkerProcess(saq, options);
  return exitCode;
}

/** Like `runWorkers`, but also accepts requests to stop from `stopSource`, and returns why the workers ended. */
export async function runWorkerProcess(
  saq: WorkerHost,
  { logger: givenLogger, queues, reloader = false, onStartError, stopSource, onReady }: WorkerProcessOptions,
): Promise<WorkerProcessEnd> {
  const logger = neverThrowing(givenLogger);
  let workers: Worker[] = [];
  const runningKeys = () => workers.flatMap((worker) => worker.runningKeys);
  let exitCode = 0;
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
  const requests: StopListener = {
    stop: ({ grace, origin }) => {
      if (isStopping) return;
      logger.info(origin, "stopping: running jobs may finish");
      stop(grace);
    },
    hurry: ({ origin }) => {
      logger.warn(origin, "second signal: running jobs are cancelled and go back into the queue");
      for (const worker of workers) worker.hurry();
    },
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
  const listening = [signalSource({ reloader }), ...(stopSource ? [stopSource] : [])].map((source) =>
    source(requests),
  );
  const removeListeners = () => {
    for (const endListening of listening) endListening();
    process.off("unhandledRejection", onRejection);
    process.off("uncaughtException", onException);
  };
  process.on("unhandledRejection", onRejection);
  process.on("uncaughtException", onException);
  try {
    workers = workersOf(saq, logger, queues);
  } catch (error) {
    removeListeners();
    throw error;
  }
  let isFinished = false;
  try {
    const start = async () => {
      await saq.connect({ wait: true, signal: startAbort.signal });
      if (!isStopping) await Promise.all(workers.map((worker) => worker.start()));
      if (!isStopping) onReady?.();
    };
    const started = start();
    const finished = started.then(() => Promise.all(workers.map((worker) => worker.finished)));
    // A signal also ends the start, because a database that does not respond can delay it for many seconds.
    const grace = await Promise.race([stopped, finished.then(() => undefined)]);
    isFinished = !isStopping;
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
  return { exitCode, isFinished };
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
