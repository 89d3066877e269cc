/**
 * Worker processes beside the first one (L-4). Signals go to each of them: a supervisor tells the parent alone (D-49).
 * One that dies takes no other down and is not started again; that is the supervisor's business (L-8).
 */
import { type ChildProcess, fork } from "node:child_process";
import type { Logger } from "../logger.js";
import { within } from "../within.js";

/** For a killed process to be gone. */
const killedMs = 1_000;

export class Children {
  readonly #children: { child: ChildProcess; ended: Promise<number> }[];
  readonly #logger: Logger;
  #stopping = false;

  /** Starts `count` processes of a program. */
  constructor(count: number, program: string, args: readonly string[], logger: Logger) {
    this.#logger = logger;
    this.#children = Array.from({ length: count }, (_, index) => {
      const child = fork(program, args);
      return { child, ended: this.#ended(child, index + 2) };
    });
  }

  /** Passes a signal on. */
  signal(name: NodeJS.Signals): void {
    this.#stopping = true;
    for (const { child } of this.#children) this.#kill(child, name);
  }

  /** Resolves when all have ended by themselves; the worst exit code. */
  async ended(): Promise<number> {
    return Math.max(0, ...(await Promise.all(this.#children.map(({ ended }) => ended))));
  }

  /** Waits that long, then kills what is left (L-7). The worst exit code. */
  async stop(patienceMs: number): Promise<number> {
    await within(patienceMs, this.ended());
    for (const { child } of this.#children) {
      if (!isAlive(child)) continue;
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
    if (!isAlive(child)) return;
    try {
      child.kill(name);
    } catch (error) {
      this.#logger.error({ err: error, pid: child.pid }, `A worker process could not be sent ${name}`);
    }
  }

  /** The exit code; one that was killed counts as failed. */
  #ended(child: ChildProcess, number: number): Promise<number> {
    return new Promise((resolve) => {
      const settle = (code: number | null, signal: string | null, err?: Error) => {
        if (!this.#stopping || code !== 0) {
          const how = { pid: child.pid, code, signal, ...(err && { err }) };
          this.#logger.error(
            how,
            `Worker process ${number} ended; the others go on, and it is not started again`,
          );
        }
        resolve(code ?? 1);
      };
      child.once("exit", (code, signal) => settle(code, signal));
      child.once("error", (error) => {
        if (child.pid === undefined) settle(null, null, error);
      });
    });
  }
}

const isAlive = ({ pid, exitCode, signalCode }: ChildProcess): boolean =>
  pid !== undefined && exitCode === null && signalCode === null;
