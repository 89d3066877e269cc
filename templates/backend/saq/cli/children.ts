/**
 * The worker processes beside the first one. Signals are passed on to each of them, because a supervisor may signal
 * only the parent.
 *
 * When one process dies, the others go on. It is started again after a pause, which doubles with each death in a row: a
 * job that crashes its worker would otherwise cause one restart after the other, and each costs a second of CPU.
 */
import { type ChildProcess, fork } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { doubled } from "../core/backoff.js";
import type { Logger } from "../logger.js";
import { withTimeout } from "../timers.js";

/** Maximum time that a killed process takes to end, ms. */
const killTimeoutMs = 1_000;
/** The pause before the first restart, ms. It doubles after each death, up to `maxPauseMs`. */
const firstPauseMs = 1_000;
const maxPauseMs = 30_000;
/** A process that ran for this long, ms, was healthy: the next pause is the first one again. */
const healthyMs = 60_000;

/** Returns the pause before a restart, ms. `deaths`: number of deaths in a row, at least 1. */
export const restartPauseMs = (deaths: number): number => doubled(deaths - 1, firstPauseMs, maxPauseMs);

/** How a process ended. */
interface RunEnd {
  /** The exit code; 1 for a process that was killed by a signal or could not be started. */
  code: number;
  ranMs: number;
}

export class Children {
  readonly #program: string;
  readonly #args: readonly string[];
  readonly #logger: Logger;
  /** The processes that run. */
  readonly #alive = new Set<ChildProcess>();
  /** One promise for each of the `count` processes. It resolves with the exit code of the last run. */
  readonly #ended: readonly Promise<number>[];
  /** Ends the pauses before restarts; nothing is started after it fires. */
  readonly #closing = new AbortController();

  /** Starts `count` processes of a program. */
  constructor(count: number, program: string, args: readonly string[], logger: Logger) {
    this.#program = program;
    this.#args = args;
    this.#logger = logger;
    this.#ended = Array.from({ length: count }, (_, index) => this.#keepRunning(index + 2));
  }

  /** Passes a signal on to all processes. Nothing is restarted after this call. */
  signal(name: NodeJS.Signals): void {
    this.#closing.abort();
    for (const child of this.#alive) this.#kill(child, name);
  }

  /** Waits until all processes have ended by themselves, and restarts none. Returns the highest exit code. */
  async ended(): Promise<number> {
    this.#closing.abort();
    return Math.max(0, ...(await Promise.all(this.#ended)));
  }

  /**
   * Waits up to `timeoutMs` for all processes to end, then kills the rest. Returns the highest exit code; 1 when a
   * killed process is not gone after 1 s.
   */
  async stop(timeoutMs: number): Promise<number> {
    await withTimeout(timeoutMs, this.ended());
    for (const child of this.#alive) {
      this.#logger.error({ pid: child.pid }, "A worker process did not stop in time and is killed");
      this.#kill(child, "SIGKILL");
    }
    let highestCode = 1;
    await withTimeout(
      killTimeoutMs,
      this.ended().then((code) => {
        highestCode = code;
      }),
    );
    return highestCode;
  }

  #kill(child: ChildProcess, name: NodeJS.Signals): void {
    try {
      child.kill(name);
    } catch (error) {
      this.#logger.error({ err: error, pid: child.pid }, `Could not send ${name} to a worker process`);
    }
  }

  /** Runs a process and restarts it when it fails. Returns the exit code of the last run. */
  async #keepRunning(number: number): Promise<number> {
    for (let deaths = 0; ; ) {
      const { code, ranMs } = await this.#run(number);
      if (code === 0 || this.#closing.signal.aborted) return code;
      deaths = ranMs >= healthyMs ? 1 : deaths + 1;
      const pauseMs = restartPauseMs(deaths);
      this.#logger.warn(
        { deaths, pauseMs },
        `Worker process ${number} is started again in ${pauseMs / 1_000} s; the others go on`,
      );
      if (await this.#isClosedWithin(pauseMs)) return code;
    }
  }

  #run(number: number): Promise<RunEnd> {
    const startedAt = performance.now();
    const child = fork(this.#program, [...this.#args]);
    this.#alive.add(child);
    return new Promise((resolve) => {
      const settle = (code: number | null, signal: string | null, err?: Error) => {
        this.#alive.delete(child);
        if (!this.#closing.signal.aborted || code !== 0) {
          const fields = { pid: child.pid, code, signal, ...(err && { err }) };
          this.#logger.error(fields, `Worker process ${number} ended`);
        }
        resolve({ code: code ?? 1, ranMs: performance.now() - startedAt });
      };
      child.once("exit", (code, signal) => settle(code, signal));
      child.once("error", (error) => {
        if (child.pid === undefined) settle(null, null, error);
      });
    });
  }

  async #isClosedWithin(ms: number): Promise<boolean> {
    const { signal } = this.#closing;
    await sleep(ms, undefined, { signal }).catch(() => {});
    return signal.aborted;
  }
}
