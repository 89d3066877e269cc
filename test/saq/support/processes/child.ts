/** Starts and signals the worker processes of a test, reads what they log, and ends those that are left. */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { CronJob, QueueOptions } from "../../../../templates/backend/saq/index.js";

export interface WorkerProcessOptions
  extends Omit<Partial<QueueOptions>, "name" | "tasks" | "dsn" | "scheduledTasks"> {
  /** Scheduled tasks, made by `cronJob`. */
  scheduledTasks?: readonly CronJob<"record", undefined>[];
  url: string;
  /** Database in which tasks record their runs. It differs from `url` if a proxy lies before the engine's database. */
  runsUrl?: string;
  /** Adds the tasks that run in threads. */
  withThreads?: boolean;
  reloader?: boolean;
  throwingLogger?: boolean;
  /** Logs nothing about single jobs that succeed. */
  quiet?: boolean;
  /** A program that starts Node, with the program's own arguments. */
  within?: readonly string[];
  /** Arguments of Node. By default they start the worker as TypeScript. */
  command?: readonly string[];
}

export interface LogLine {
  level: string;
  message: string;
  err?: string;
  [field: string]: unknown;
}

/** Timeout of a wait for an event, ms. Even on a busy machine, only an event that never comes takes so long. */
const longestWait = 120_000;

const repository = fileURLToPath(new URL("../../../..", import.meta.url));
const living = new Set<WorkerProcess>();

export class WorkerProcess {
  readonly lines: LogLine[] = [];
  readonly exited: Promise<number | NodeJS.Signals>;
  readonly #child: ChildProcess;
  readonly #waiting = new Set<() => void>();
  #stderr = "";

  /** Starts a worker process. Resolves when the worker takes jobs. */
  static async start(options: WorkerProcessOptions): Promise<WorkerProcess> {
    const worker = new WorkerProcess(options);
    await worker.said("Worker starting: default");
    return worker;
  }

  constructor(options: WorkerProcessOptions) {
    const {
      command = ["--import", "tsx", fileURLToPath(new URL("./worker.ts", import.meta.url))],
      within = [],
      ...rest
    } = options;
    const [program = "", ...given] = [...within, process.execPath, ...command, JSON.stringify(rest)];
    this.#child = spawn(program, given, {
      cwd: repository,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NODE_OPTIONS: "" },
    });
    living.add(this);
    const { stdout, stderr } = this.#child;
    if (!stdout || !stderr) throw new Error("The worker process has no output to read");
    createInterface({ input: stdout }).on("line", (line) => {
      this.lines.push(JSON.parse(line) as LogLine);
      for (const look of [...this.#waiting]) look();
    });
    stderr.on("data", (chunk: Buffer) => {
      this.#stderr += chunk.toString();
    });
    this.exited = new Promise((resolve) => {
      this.#child.once("close", (code, signal) => {
        living.delete(this);
        resolve(code ?? signal ?? "SIGKILL");
        for (const look of [...this.#waiting]) look();
      });
    });
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  get workerId(): string {
    return String(this.lines.find((line) => line.message.startsWith("Worker starting"))?.workerId);
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Returns the first log line that contains `text`, and waits for it if it is not there yet. */
  said(text: string, withinMs = longestWait): Promise<LogLine> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void) => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        act();
      };
      const look = () => {
        const line = this.lines.find(({ message }) => message.includes(text));
        if (line) settle(() => resolve(line));
        else if (!living.has(this)) settle(() => reject(this.#silence(text, "ended")));
      };
      const timer = setTimeout(
        () => settle(() => reject(this.#silence(text, `took ${withinMs} ms`))),
        withinMs,
      );
      this.#waiting.add(look);
      look();
    });
  }

  /** Waits for the end of the process. Returns how it ended and how long the wait took, ms. */
  async exit(withinMs = longestWait): Promise<{ code: number | NodeJS.Signals; ms: number }> {
    const began = performance.now();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(this.#silence("its end", `took ${withinMs} ms`)), withinMs);
    });
    try {
      return { code: await Promise.race([this.exited, late]), ms: performance.now() - began };
    } finally {
      clearTimeout(timer);
    }
  }

  async stop(): Promise<{ code: number | NodeJS.Signals; ms: number }> {
    this.signal("SIGTERM");
    return this.exit();
  }

  #silence(wanted: string, why: string): Error {
    const tail = this.lines.slice(-30).map((line) => JSON.stringify(line).slice(0, 400));
    return new Error(
      `Waiting for "${wanted}", the worker ${why}. It said:\n${tail.join("\n")}\n${this.#stderr}`,
    );
  }
}

/** Kills all worker processes. For `afterAll`: a test that failed does not stop its processes. */
export async function endAllWorkers(): Promise<void> {
  await Promise.all(
    [...living].map(async (worker) => {
      worker.signal("SIGKILL");
      await worker.exited;
    }),
  );
}

/**
 * Fails unless a notification makes a worker claim a job. `pickUp` enqueues a job and returns how long the job waited,
 * ms. The worker's tick comes once a second, and each try begins soon after a tick: with the tick alone, a job would
 * wait for 600 ms or more. On a busy machine a single try may be late, but not all twenty.
 */
export async function quickPickup(pickUp: () => Promise<number>): Promise<void> {
  const waits: number[] = [];
  do {
    await new Promise((resolve) => setTimeout(resolve, 50 + 50 * (waits.length % 4)));
    waits.push(await pickUp());
  } while (Math.min(...waits) >= 400 && waits.length < 20);
  if (Math.min(...waits) >= 400) throw new Error(`No job was picked up by its notification: ${waits} ms`);
}

/** Calls `ask` until it returns a truthy value. Fails after `withinMs`, with the error of `ask` if it threw. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T>,
  withinMs = longestWait,
): Promise<NonNullable<T>> {
  const end = performance.now() + withinMs;
  for (;;) {
    const answer = await ask().catch((error: unknown) => {
      if (performance.now() > end) throw error;
      return undefined;
    });
    if (answer) return answer;
    if (performance.now() > end) throw new Error(`Not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
