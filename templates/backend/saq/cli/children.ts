/**
 * Worker processes beside the first one (L-4). Signals go to each of them: a supervisor tells the parent alone (D-49).
 *
 * One that dies takes no other down and is started again after a pause, which doubles from death to death: a job that
 * crashes its worker would otherwise be started over and over, and every start costs a second of CPU (L-8).
 */
import { type ChildProcess, fork } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { doubled } from "../backoff.js";
import type { Logger } from "../logger.js";
import { within } from "../within.js";

/** For a killed process to be gone. */
const killedMs = 1_000;
/** Before the first restart; doubled after each death, up to the longest. */
const firstPauseMs = 1_000;
const longestPauseMs = 30_000;
/** A process that ran for this long was healthy: the pause begins anew. */
const healthyMs = 60_000;

/** The pause before a restart, ms; `deaths` in a row, at least 1. */
export const restartPauseMs = (deaths: number): number => doubled(deaths - 1, firstPauseMs, longestPauseMs);

/** How a process ended. */
interface Ending {
  /** One that was killed counts as failed: 1. */
  code: number;
  ranMs: number;
}

export class Children {
  readonly #program: string;
  readonly #args: readonly string[];
  readonly #logger: Logger;
  /** Those that run. */
  readonly #alive = new Set<ChildProcess>();
  /** One for each process, whatever takes its place; the exit code of the last. */
  readonly #ended: readonly Promise<number>[];
  /** Ends the pauses before restarts. */
  readonly #closing = new AbortController();

  /** Starts `count` processes of a program. */
  constructor(count: number, program: string, args: readonly string[], logger: Logger) {
    this.#program = program;
    this.#args = args;
    this.#logger = logger;
    this.#ended = Array.from({ length: count }, (_, index) => this.#keepRunning(index + 2));
  }

  /** Passes a signal on. Nothing is started again from now on. */
  signal(name: NodeJS.Signals): void {
    this.#closing.abort();
    for (const child of this.#alive) this.#kill(child, name);
  }

  /** Resolves when all have ended by themselves, without starting any again; the worst exit code. */
  async ended(): Promise<number> {
    this.#closing.abort();
    return Math.max(0, ...(await Promise.all(this.#ended)));
  }

  /** Waits that long, then kills what is left (L-7). The worst exit code. */
  async stop(patienceMs: number): Promise<number> {
    await within(patienceMs, this.ended());
    for (const child of this.#alive) {
      this.#logger.error({ pid: child.pid }, "A worker process did not stop in time and is killed");
      this.#kill(child, "SIGKILL");
    }
    let worst = 1;
    await within(
      killedMs,
      this.ended().then((code) => {
        worst = code;
      }),
    );
    return worst;
  }

  #kill(child: ChildProcess, name: NodeJS.Signals): void {
    try {
      child.kill(name);
    } catch (error) {
      this.#logger.error({ err: error, pid: child.pid }, `A worker process could not be sent ${name}`);
    }
  }

  /** Resolves with the exit code of the last process in this place. */
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

  #run(number: number): Promise<Ending> {
    const startedAt = performance.now();
    const child = fork(this.#program, [...this.#args]);
    this.#alive.add(child);
    return new Promise((resolve) => {
      const settle = (code: number | null, signal: string | null, err?: Error) => {
        this.#alive.delete(child);
        if (!this.#closing.signal.aborted || code !== 0) {
          const how = { pid: child.pid, code, signal, ...(err && { err }) };
          this.#logger.error(how, `Worker process ${number} ended`);
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
