/**
 * The worker processes that another process starts: `workers run --workers N`, or a server with `useServerLifespan`.
 *
 * When one process dies, the others go on. It is started again after a pause, which doubles with each death in a row: a
 * job that crashes its worker would otherwise cause one restart after the other, and each costs a second of CPU.
 *
 * Requests to stop are messages and not signals. A signal may have reached the processes before, for instance Ctrl-C
 * from the terminal, and a second one would end their grace period.
 */
import { type ChildProcess, fork } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import type { QueueConfig } from "../../config/index.js";
import { doubled } from "../../core/backoff.js";
import { ConfigError, SaqError } from "../../errors.js";
import type { Logger } from "../../logger.js";
import { withTimeout } from "../../timers.js";
import { type ChildMessage, isEngineMessage, type ParentMessage } from "./messages.js";
import type { ParentOptions } from "./parent-process.js";

/** Maximum time that a killed process takes to end, ms. */
const killTimeoutMs = 1_000;
/** How long a worker needs after its grace period and hard deadline to record results and to disconnect, s. */
const disconnectSeconds = 2;
/** The pause before the first restart, ms. It doubles after each death, up to `maxPauseMs`. */
const firstPauseMs = 1_000;
const maxPauseMs = 30_000;
/** A process that ran for this long, ms, was healthy: the next pause is the first one again. */
const healthyMs = 60_000;

/** Returns the pause before a restart, ms. `deaths`: number of deaths in a row, at least 1. */
export const restartPauseMs = (deaths: number): number => doubled(deaths - 1, firstPauseMs, maxPauseMs);

/** The options of the program that runs in each process. It gets them as its first argument, as JSON. */
export interface WorkerProgramOptions extends ParentOptions {
  /** Name of the process, for log lines and for `ps`. */
  name: string;
  /** Path of the module that exports the queues. */
  module: string;
  /** Names of the queues to work on. Empty: all except those whose worker runs in the web process. */
  queues: readonly string[];
}

export interface WorkerProcessesOptions {
  /** The processes to run. */
  processes: readonly Pick<WorkerProgramOptions, "name" | "queues">[];
  /** Path of the program that runs in each process. */
  program: string;
  /** Path of the module that exports the queues. */
  module: string;
  /** The queues of all processes. They decide how long a stop may take. */
  queues: readonly QueueConfig[];
  /** This process is restarted on each save, so SIGTERM gives running jobs 1 s. @defaultValue false */
  reloader?: boolean | undefined;
  logger: Logger;
}

/** How one run of a process ended. */
interface RunEnd {
  pid: number | undefined;
  /** The exit code; null for a process that was killed by a signal or could not be started. */
  code: number | null;
  signal: NodeJS.Signals | null;
  ranMs: number;
  /** Why the process could not start, if that is known. */
  failure: string | null;
  /** True if its workers had nothing left to do. */
  isFinished: boolean;
}

/** What the first start of a process reports; each is called at most once, and later calls have no effect. */
interface FirstStart {
  succeed(): void;
  fail(error: Error): void;
}

export class WorkerProcesses {
  readonly #options: WorkerProcessesOptions;
  readonly #logger: Logger;
  /** The processes that run. */
  readonly #alive = new Set<ChildProcess>();
  /** One promise for each process. It resolves with the exit code of the last run. */
  #ended: readonly Promise<number>[] = [];
  /** Resolves when each process has started once. It rejects only if `start` awaits it. */
  #started: Promise<unknown> = Promise.resolve();
  /** Ends the pauses before restarts; nothing is started after it fires. */
  readonly #closing = new AbortController();
  #hasLaunched = false;
  #isStopRequested = false;
  #isStartAwaited = false;
  #hasStartFailed = false;
  #stopping: Promise<number> | null = null;
  readonly #gracePeriodEnded: Promise<void>;
  #endGracePeriod: () => void = () => {};

  constructor(options: WorkerProcessesOptions) {
    this.#options = options;
    this.#logger = options.logger;
    this.#gracePeriodEnded = new Promise((resolve) => {
      this.#endGracePeriod = resolve;
    });
  }

  /** Starts the processes, and does not wait. A process that cannot start is tried again, as after a crash. */
  launch(): void {
    if (this.#hasLaunched) throw new ConfigError("These worker processes are already started");
    this.#hasLaunched = true;
    const launched = this.#options.processes.map(({ name, queues }) => {
      let firstStart: FirstStart = { succeed: () => {}, fail: () => {} };
      const started = new Promise<void>((resolve, reject) => {
        firstStart = { succeed: resolve, fail: reject };
      });
      return { started, ended: this.#keepRunning(name, queues, firstStart) };
    });
    this.#ended = launched.map(({ ended }) => ended);
    this.#started = Promise.all(launched.map(({ started }) => started));
  }

  /**
   * Starts the processes. Resolves when all of them take jobs, or when they are stopped before that.
   *
   * @throws SaqError worker_failed if a process reports that it cannot start, or ends with an exit code of its own
   *   before it has started. A process that is killed by a signal meanwhile is started again.
   */
  async start(): Promise<void> {
    this.#isStartAwaited = true;
    this.launch();
    await this.#started;
  }

  /** From now on, a process that ends is not started again. The processes go on. */
  restartNone(): void {
    this.#closing.abort();
  }

  /** Asks all processes to stop. Nothing is restarted after this call. `grace`: as in `stop`. */
  requestStop(grace?: number): void {
    this.#isStopRequested = true;
    this.restartNone();
    for (const child of this.#alive) this.#send(child, { saq: "stop", grace });
  }

  /** Ends the grace period of a stop in progress, or of the next stop. */
  hurry(): void {
    this.#endGracePeriod();
    for (const child of this.#alive) this.#send(child, { saq: "hurry" });
  }

  /** Waits until all processes have ended by themselves, and restarts none. Returns the highest exit code. */
  async ended(): Promise<number> {
    this.restartNone();
    return Math.max(0, ...(await Promise.all(this.#ended)));
  }

  /**
   * Asks all processes to stop and waits for their end. Those that still run after the grace period, the hard deadline
   * and 2 s are killed. Returns the highest exit code; 1 when a killed process is not gone after 1 s. Later calls wait
   * for the first one.
   *
   * @param grace how long running jobs may continue, s; by default the queue's `shutdownGracePeriod`
   */
  stop(grace?: number): Promise<number> {
    this.#stopping ??= this.#stop(grace);
    return this.#stopping;
  }

  async #stop(grace?: number): Promise<number> {
    this.requestStop(grace);
    const ended = this.ended();
    const hurried = this.#gracePeriodEnded.then(() =>
      withTimeout(stopSeconds(this.#queues, 0) * 1_000, ended),
    );
    await withTimeout(stopSeconds(this.#queues, grace) * 1_000, Promise.race([ended, hurried]));
    for (const child of this.#alive) {
      this.#logger.error({ pid: child.pid }, "A worker process did not stop in time and is killed");
      this.#kill(child, "SIGKILL");
    }
    let highestCode = 1;
    await withTimeout(
      killTimeoutMs,
      ended.then((code) => {
        highestCode = code;
      }),
    );
    return highestCode;
  }

  get #queues(): readonly QueueConfig[] {
    return this.#options.queues;
  }

  /**
   * Runs a process and starts it again when it ends without being asked. Returns the exit code of the last run; 0 if a
   * stop was requested while the process waited for its restart.
   */
  async #keepRunning(name: string, queues: readonly string[], firstStart: FirstStart): Promise<number> {
    let lastCode = 0;
    let hasStarted = false;
    for (let deaths = 0; !this.#closing.signal.aborted; ) {
      const end = await this.#run(name, queues, () => {
        hasStarted = true;
        firstStart.succeed();
      });
      lastCode = exitCodeOf(end, this.#closing.signal.aborted);
      if (end.failure !== null && !hasStarted && this.#isStartAwaited && !this.#closing.signal.aborted) {
        this.restartNone();
        this.#hasStartFailed = true;
        firstStart.fail(
          new SaqError("worker_failed", `Worker process ${name} could not start: ${end.failure}`),
        );
      } else if (this.#closing.signal.aborted) {
        // Usually all processes fail for the same reason, which the error of the start says once.
        if (lastCode !== 0 && !(this.#hasStartFailed && end.failure !== null)) this.#logEnd(name, end, "");
      } else if (end.isFinished) {
        break;
      } else {
        deaths = end.ranMs >= healthyMs ? 1 : deaths + 1;
        const pauseMs = restartPauseMs(deaths);
        this.#logEnd(name, end, ` and is started again in ${pauseMs / 1_000} s`, { deaths, pauseMs });
        await sleep(pauseMs, undefined, { signal: this.#closing.signal }).catch(() => {});
        // The death is logged. A stop before the restart is as successful as one after it.
        if (this.#isStopRequested) lastCode = 0;
      }
    }
    firstStart.succeed();
    return lastCode;
  }

  /** Runs a process to its end. `onReady` is called when its workers take jobs. */
  #run(name: string, queues: readonly string[], onReady: () => void): Promise<RunEnd> {
    const startedAt = performance.now();
    const { program, module, reloader = false } = this.#options;
    const stopTimeout = stopSeconds(this.#queues, undefined);
    const options: WorkerProgramOptions = {
      name,
      module,
      queues,
      reloader,
      parent: process.pid,
      stopTimeout,
    };
    const child = fork(program, [JSON.stringify(options)], { execArgv: inheritedExecArgv() });
    this.#alive.add(child);
    let isReady = false;
    let failure: string | null = null;
    let isFinished = false;
    child.on("message", (message) => {
      if (!isEngineMessage<ChildMessage>(message)) return;
      if (message.saq === "failed") failure = message.reason;
      else if (message.saq === "finished") isFinished = true;
      else {
        isReady = true;
        onReady();
      }
    });
    return new Promise((resolve) => {
      const settle = (code: number | null, signal: NodeJS.Signals | null) => {
        this.#alive.delete(child);
        if (!isReady && !isFailedBySignal(code, signal) && code !== 0)
          failure ??= `it ended with exit code ${code} before it had started. Its output says why`;
        const ranMs = performance.now() - startedAt;
        resolve({ pid: child.pid, code, signal, ranMs, failure, isFinished });
      };
      child.once("exit", settle);
      child.on("error", (error) => {
        if (child.pid !== undefined) return;
        failure = error.message;
        settle(null, null);
      });
    });
  }

  #logEnd(name: string, end: RunEnd, again: string, restart: object = {}): void {
    const { pid, code, signal, failure } = end;
    const how = failure === null ? `ended with ${signal ?? `exit code ${code}`}` : "could not start";
    const reason = failure === null ? "" : `: ${failure}`;
    const level = code === 0 ? "warn" : "error";
    this.#logger[level]({ pid, code, signal, ...restart }, `Worker process ${name} ${how}${again}${reason}`);
  }

  /** Sends a message; if the channel is closed, SIGTERM instead. */
  #send(child: ChildProcess, message: ParentMessage): void {
    child.send(message, (error) => {
      if (error && this.#alive.has(child)) this.#kill(child, "SIGTERM");
    });
  }

  #kill(child: ChildProcess, name: NodeJS.Signals): void {
    try {
      child.kill(name);
    } catch (error) {
      this.#logger.error({ err: error, pid: child.pid }, `Could not send ${name} to a worker process`);
    }
  }
}

/** Returns how long a stop may take before the rest is killed, s. Without `grace`, each queue has its own. */
const stopSeconds = (queues: readonly QueueConfig[], grace: number | undefined): number =>
  Math.max(
    0,
    ...queues.map(
      ({ shutdownGracePeriod, cancellationHardDeadline }) =>
        (grace ?? shutdownGracePeriod) + cancellationHardDeadline + disconnectSeconds,
    ),
  );

/** True if a signal ended the process. A loader may turn a signal into an exit code of more than 128, as shells do. */
const isFailedBySignal = (code: number | null, signal: NodeJS.Signals | null): boolean =>
  signal !== null || (code !== null && code > 128);

/**
 * Returns the exit code; 1 for a process that a signal killed. If a stop was requested while the program was still
 * loading, nothing handled the signal, and nothing was lost: that counts as 0.
 */
function exitCodeOf({ code, signal }: RunEnd, isClosing: boolean): number {
  if (isClosing && (signal === "SIGTERM" || signal === "SIGINT" || code === 143 || code === 130)) return 0;
  return code ?? 1;
}

/**
 * Returns Node's options for the processes: those of this process, without the debugger's, because two processes cannot
 * listen on its port.
 */
function inheritedExecArgv(): string[] {
  const kept = process.execArgv.filter((argument) => !/^--inspect(-|=|$)/.test(argument));
  // `fork` removes the program of `node -e` itself, but only from the original list.
  return kept.length === process.execArgv.length ? process.execArgv : kept;
}
