import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";

export interface ProgramOptions {
  cwd: string;
  env: NodeJS.ProcessEnv;
  uid?: number;
  gid?: number;
}

/** A program in a process group of its own, as a shell starts it. What it prints is kept for waits and for failures. */
export class Program {
  /** Standard output and standard error so far, as they came. */
  output = "";
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #closed: Promise<number | null>;
  #over = false;

  constructor([file = "", ...args]: readonly string[], options: ProgramOptions) {
    this.name = [file, ...args].join(" ");
    this.#child = spawn(file, args, { ...options, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.output += text;
      });
    }
    this.#child.on("error", (error) => {
      this.output += `(could not be started: ${error.message})`;
    });
    // "close", not "exit": it comes when nobody holds the output any more, a forgotten grandchild included.
    this.#closed = new Promise((resolve) => {
      this.#child.once("close", (code) => {
        this.#over = true;
        resolve(code);
      });
    });
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`${this.name} was not started.`);
    return this.#child.pid;
  }

  /** Signals the whole group, as Ctrl-C in a terminal does; a group that is gone already is left alone. */
  signal(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  /** Processes of the group that still live; those that only wait for init to collect them do not count. */
  group(): string[] {
    const { stdout } = spawnSync("ps", ["-A", "-o", "pgid=,stat=,pid=,args="], { encoding: "utf8" });
    return stdout.split("\n").filter((line) => new RegExp(`^\\s*${this.pid}\\s+[^Z\\s]`).test(line));
  }

  /** The exit code, when the program has ended and nobody holds its output any more; null after a signal. */
  async ended(withinMs: number): Promise<number | null> {
    const timer = new AbortController();
    const late = sleep(withinMs, "late" as const, { signal: timer.signal }).catch(() => "late" as const);
    const result = await Promise.race([this.#closed, late]);
    timer.abort();
    if (result === "late") throw this.failure(`did not end within ${withinMs / 1000} s`);
    return result;
  }

  /** Waits until the output from `from` on matches. */
  async prints(pattern: RegExp, withinMs: number, from = 0): Promise<RegExpExecArray> {
    return this.until(`print ${pattern}`, withinMs, () => pattern.exec(this.output.slice(from)));
  }

  /** Asks again until there is an answer other than undefined, null or false. Fails early when the program ends. */
  async until<T>(
    what: string,
    withinMs: number,
    ask: () => T | Promise<T>,
  ): Promise<Exclude<T, undefined | null | false>> {
    const deadline = Date.now() + withinMs;
    for (;;) {
      const over = this.#over;
      const answer = await ask();
      if (answer !== undefined && answer !== null && answer !== false)
        return answer as Exclude<T, undefined | null | false>;
      if (over) throw this.failure(`ended and did not ${what}`);
      if (Date.now() > deadline) throw this.failure(`did not ${what} within ${withinMs / 1000} s`);
      await sleep(50);
    }
  }

  failure(what: string): Error {
    return new Error(`${this.name} ${what}. Its output:\n${this.output || "(none)"}`);
  }
}

/** Runs a program to its end and answers what it printed. */
export async function runProgram(
  command: readonly string[],
  { withinMs, code = 0, ...options }: ProgramOptions & { withinMs: number; code?: number },
): Promise<string> {
  const program = new Program(command, options);
  try {
    const ended = await program.ended(withinMs);
    if (ended !== code) throw program.failure(`ended with ${ended}, not ${code}`);
  } finally {
    program.signal("SIGKILL");
  }
  return program.output;
}
