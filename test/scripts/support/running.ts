import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { bareEnvironment } from "./scratch-app.js";

/** Only a text that never comes is waited for so long: on a busy machine a start has taken 40 s. */
const WAIT_MS = 120_000;

/** A command that runs until it is told to stop, as in a terminal of its own. */
export class Running {
  output = "";
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;

  constructor(root: string, [file = "", ...args]: string[], environment: Record<string, string> = {}) {
    this.#child = spawn(file, args, {
      cwd: root,
      env: { ...bareEnvironment(root), ...environment },
      stdio: ["ignore", "pipe", "pipe"],
      // Its process group is the terminal's foreground group.
      detached: true,
    });
    this.#closed = once(this.#child, "close");
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text) => {
        this.output += text;
      });
    }
  }

  /** What the terminal does at Ctrl-C (SIGINT) or when it is closed (SIGHUP): the signal goes to the whole group. */
  interrupt(signal: NodeJS.Signals = "SIGINT"): void {
    process.kill(-(this.#child.pid ?? 0), signal);
  }

  /** Ends the command alone, as `kill` does; what it started has to notice by itself. */
  kill(signal: NodeJS.Signals = "SIGTERM"): void {
    this.#child.kill(signal);
  }

  /** Waits for a text; `from` is where to look, a length of `output` seen before. */
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

  /** Waits until it and all that hold its output have ended. */
  async ended(): Promise<number | null> {
    await this.#closed;
    return this.#child.exitCode;
  }
}

/**
 * Command lines of living processes that work in a folder or were started from it. Only Linux tells; elsewhere the
 * closed ports have to do.
 */
export const processesOf = (root: string): string[] => listProcesses(root).map(({ command }) => command);

/** Ids of those whose command line holds a text after the program. */
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
        // Ended meanwhile, or somebody else's.
        return [];
      }
    });
}
