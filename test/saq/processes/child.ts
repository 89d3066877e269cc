/** Worker processes of a test: start, signal, listen to what they log, and leave none behind. */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { CronJob, QueueOptions } from "../../../templates/backend/saq/index.js";

export interface WorkerProcessOptions
  extends Omit<Partial<QueueOptions>, "name" | "tasks" | "dsn" | "scheduledTasks"> {
  /** Entries of the tasks here, made by `cronJob`. */
  scheduledTasks?: readonly CronJob<"record", undefined>[];
  url: string;
  /** Where tasks write down their runs; the engine's own address unless something lies between. */
  runsUrl?: string;
  /** It has the tasks that run in threads, too. */
  withThreads?: boolean;
  reloader?: boolean;
  throwingLogger?: boolean;
  /** Says nothing about single jobs that went well. */
  quiet?: boolean;
  /** A program that runs Node, with its arguments. */
  within?: readonly string[];
  /** What Node is started with; the worker as TypeScript unless given. */
  command?: readonly string[];
}

export interface LogLine {
  level: string;
  message: string;
  err?: string;
  [field: string]: unknown;
}

/** How long an event is waited for, ms: only one that never comes takes so long, also on a busy machine. */
const longestWait = 120_000;

const repository = fileURLToPath(new URL("../../..", import.meta.url));
const living = new Set<WorkerProcess>();

export class WorkerProcess {
  readonly lines: LogLine[] = [];
  readonly exited: Promise<number | NodeJS.Signals>;
  readonly #child: ChildProcess;
  readonly #waiting = new Set<() => void>();
  #stderr = "";

  /** Resolves when the worker takes jobs. */
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

  /** The first line with that text, now or later. */
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

  /** How it ended and how long that took, ms. */
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

/** For `afterAll`: a test that failed leaves its processes as they are. */
export async function endAllWorkers(): Promise<void> {
  await Promise.all(
    [...living].map(async (worker) => {
      worker.signal("SIGKILL");
      await worker.exited;
    }),
  );
}

/**
 * Expects that a worker learns of jobs by notification. `pickUp` enqueues a job and returns how long it waited, ms. The
 * tick comes once a second, and each try begins soon after one: by it alone a job would wait for 600 ms or more. On a
 * busy machine a single try may be late; one of twenty is not.
 */
export async function quickPickup(pickUp: () => Promise<number>): Promise<void> {
  const waits: number[] = [];
  do {
    await new Promise((resolve) => setTimeout(resolve, 50 + 50 * (waits.length % 4)));
    waits.push(await pickUp());
  } while (Math.min(...waits) >= 400 && waits.length < 20);
  if (Math.min(...waits) >= 400) throw new Error(`No job was picked up by its notification: ${waits} ms`);
}

/** Asks again and again until the answer is truthy. */
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
