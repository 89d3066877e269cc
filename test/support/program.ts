import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";

export interface ProgramOptions {
  cwd: string;
  env: NodeJS.ProcessEnv;
  uid?: number;
  gid?: number;
}

/** A program in its own process group, as a shell starts it. Its output is kept for waits and for error messages. */
export class Program {
  /** Standard output and standard error so far, in the order in which they came. */
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
    // "close", not "exit": it comes when no process holds the output any more, not even a forgotten grandchild.
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

  /** Sends a signal to the whole group, as Ctrl-C in a terminal does. Does nothing if the group has ended. */
  signal(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  /** Returns the processes of the group that still run, without zombies, which only wait for init to collect them. */
  group(): string[] {
    const { stdout } = spawnSync("ps", ["-A", "-o", "pgid=,stat=,pid=,args="], { encoding: "utf8" });
    return stdout.split("\n").filter((line) => new RegExp(`^\\s*${this.pid}\\s+[^Z\\s]`).test(line));
  }

  /** Waits until the program has ended and no process holds its output. Returns the exit code; null after a signal. */
  async ended(withinMs: number): Promise<number | null> {
    const timer = new AbortController();
    const late = sleep(withinMs, "late" as const, { signal: timer.signal }).catch(() => "late" as const);
    const result = await Promise.race([this.#closed, late]);
    timer.abort();
    if (result === "late") throw this.failure(`did not end within ${withinMs / 1000} s`);
    return result;
  }

  /** Waits until the output from the position `from` on matches. */
  async prints(pattern: RegExp, withinMs: number, from = 0): Promise<RegExpExecArray> {
    return this.until(`print ${pattern}`, withinMs, () => pattern.exec(this.output.slice(from)));
  }

  /** Calls `ask` until its result is not undefined, null or false. Fails early if the program ends. */
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

/** Runs a program to its end and returns its output. */
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
