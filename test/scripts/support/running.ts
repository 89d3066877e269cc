import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { bareEnvironment } from "./scratch-app.js";

/** Timeout of a wait for a text that never comes, ms. A start on a busy machine has taken 40 s. */
const WAIT_MS = 120_000;

/** A command that runs until it gets a signal, as in its own terminal. */
export class Running {
  output = "";
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;

  constructor(root: string, [file = "", ...args]: string[], environment: Record<string, string> = {}) {
    this.#child = spawn(file, args, {
      cwd: root,
      env: { ...bareEnvironment(root), ...environment },
      stdio: ["ignore", "pipe", "pipe"],
      // Its process group then stands for the terminal's foreground group.
      detached: true,
    });
    this.#closed = once(this.#child, "close");
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text) => {
        this.output += text;
      });
    }
  }

  /** Sends a signal to the whole group, as a terminal does at Ctrl-C (SIGINT) or when it is closed (SIGHUP). */
  interrupt(signal: NodeJS.Signals = "SIGINT"): void {
    process.kill(-(this.#child.pid ?? 0), signal);
  }

  /** Sends a signal to the command alone, as `kill` does. Its child processes must notice its end themselves. */
  kill(signal: NodeJS.Signals = "SIGTERM"): void {
    this.#child.kill(signal);
  }

  /** Waits until the output from the position `from` on contains a text. */
  async shows(text: string | RegExp, from = 0): Promise<void> {
    const end = Date.now() + WAIT_MS;
    const found = () => {
      const seen = this.output.slice(from);
      return typeof text === "string" ? seen.includes(text) : text.test(seen);
    };
    while (!found()) {
      if (Date.now() > end || this.#child.exitCode !== null) {
        throw new Error(`"${text}" did not appear. Output:\n${this.output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Waits until the command and all processes that hold its output have ended. Returns the exit code. */
  async ended(): Promise<number | null> {
    await this.#closed;
    return this.#child.exitCode;
  }
}

/**
 * Returns the command lines of the running processes whose working folder or command line contains `root`. Only on
 * Linux: elsewhere it returns none, and the tests check only that the ports are closed.
 */
export const processesOf = (root: string): string[] => listProcesses(root).map(({ command }) => command);

/** Returns the ids of those processes whose command line is `node`, followed by a text. */
export const processIdsOf = (root: string, text: string): number[] =>
  listProcesses(root).flatMap(({ pid, command }) => (command.startsWith(`node ${text}`) ? [pid] : []));

function listProcesses(root: string): { pid: number; command: string }[] {
  if (!existsSync("/proc/self/cwd")) return [];
  return readdirSync("/proc")
    .filter((pid) => /^\d+$/.test(pid))
    .flatMap((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
        const isOurs = readlinkSync(`/proc/${pid}/cwd`).startsWith(root) || command.includes(root);
        return isOurs ? [{ pid: Number(pid), command }] : [];
      } catch {
        // The process ended meanwhile, or it belongs to another user.
        return [];
      }
    });
}
