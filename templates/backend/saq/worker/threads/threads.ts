/**
 * The threads of one worker, for tasks that compute for a long time. A thread is created when a job needs one, used
 * again, and ended when it is idle. The event loop stays free meanwhile, and a run that ignores its signal is ended
 * with its thread.
 *
 * Why not a library's pool: piscina reports an abort before the thread has ended (measured: 1.3 s before, in a hash
 * function) and runs the next job beside it. Then more threads run than allowed, and the next attempt does not wait for
 * the previous one.
 *
 * A job that finds no free thread waits here for a second. Then it is given back: its attempt is not counted, and it
 * keeps its place in the queue. Another worker may have a free thread, and the job's timeout must not pass while it
 * waits.
 */
import type { ClaimedJob } from "../../core/claim.js";
import { ConfigError } from "../../errors.js";
import type { Logger } from "../../logger.js";
import type { Context, ThreadTask } from "../../tasks/task.js";
import type { Attempt } from "../attempt/attempt.js";
import { Thread } from "./thread.js";

/** Maximum time that a job waits for a thread before it is given back, ms. */
const maxWaitMs = 1_000;
/** A thread ends when it was idle for this long, ms. A new one starts within a tenth of a second. */
const idleMs = 10_000;

export interface ThreadsOptions {
  size: number;
  queueName: string;
  workerId: string;
  logger: Logger;
  start: (claimed: ClaimedJob) => void;
  giveBack: (claimed: ClaimedJob) => void;
}

export class Threads {
  readonly #options: ThreadsOptions;
  readonly #threads = new Set<Thread>();
  readonly #idle = new Map<Thread, NodeJS.Timeout>();
  /** Keys of the jobs that were admitted and have no thread yet. */
  readonly #admitted = new Set<string>();
  readonly #waiting = new Map<ClaimedJob, NodeJS.Timeout>();
  readonly #exportNames = new Map<unknown, string>();

  constructor(options: ThreadsOptions) {
    this.#options = options;
  }

  /** Number of jobs that wait for a thread. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** The jobs that wait for a thread. */
  get claims(): Iterable<ClaimedJob> {
    return this.#waiting.keys();
  }

  get #hasFree(): boolean {
    return this.#threads.size - this.#idle.size + this.#admitted.size < this.#options.size;
  }

  /**
   * Returns true if the job may start. If no thread is free, keeps the job and returns false: it is started or given
   * back later.
   */
  admit(claimed: ClaimedJob): boolean {
    if (this.#hasFree) {
      this.#admitted.add(claimed.key);
      return true;
    }
    const timer = setTimeout(() => {
      this.#waiting.delete(claimed);
      this.#options.giveBack(claimed);
    }, maxWaitMs);
    this.#waiting.set(claimed, timer);
    return false;
  }

  /** Called when an admitted attempt is over, whether or not it used a thread. */
  attemptEnded(key: string): void {
    if (this.#admitted.delete(key)) this.#startNext();
  }

  /** Removes jobs that wait for a thread, and returns them in their order. */
  takeWaiting(isWanted: (claimed: ClaimedJob) => boolean = () => true): ClaimedJob[] {
    const jobs = [...this.#waiting.keys()].filter(isWanted);
    for (const claimed of jobs) {
      clearTimeout(this.#waiting.get(claimed));
      this.#waiting.delete(claimed);
    }
    return jobs;
  }

  /** Ends all threads. */
  async close(): Promise<void> {
    for (const timer of this.#idle.values()) clearTimeout(timer);
    this.#idle.clear();
    await Promise.all([...this.#threads].map((thread) => thread.terminate()));
  }

  /** Returns the function that runs the task in a thread, in place of its own function. */
  runnerOf(task: ThreadTask, attempt: Attempt): (ctx: Context, payload: unknown) => Promise<unknown> {
    return (ctx, payload) => this.#run(task, attempt, ctx, payload);
  }

  /** Settles when the task or its thread has ended. */
  async #run(task: ThreadTask, attempt: Attempt, ctx: Context, payload: unknown): Promise<unknown> {
    const { fields } = attempt;
    // First, so that the span of an `aroundProcess` hook is the parent of what the thread does.
    const otelContext = attempt.trace?.activeCarrier() ?? null;
    const exportName = await this.#exportNameOf(task);
    ctx.signal.throwIfAborted();
    const { queueName, workerId } = this.#options;
    const job = { module: task.thread, exportName, queueName, workerId, fields, payload, otelContext };
    const thread = this.#acquire();
    this.#admitted.delete(fields.key);
    attempt.terminate = () => void thread.terminate();
    try {
      return await thread.run(job, ctx);
    } finally {
      this.#release(thread);
    }
  }

  #acquire(): Thread {
    for (const [thread, timer] of this.#idle) {
      clearTimeout(timer);
      this.#idle.delete(thread);
      if (!thread.isUnusable) return thread;
    }
    const thread = new Thread(this.#options.logger);
    this.#threads.add(thread);
    void thread.exited.then(() => {
      this.#threads.delete(thread);
      this.#startNext();
    });
    return thread;
  }

  #release(thread: Thread): void {
    if (thread.isUnusable) {
      void thread.terminate();
      return;
    }
    this.#idle.set(thread, setTimeout(() => this.#end(thread), idleMs).unref());
    this.#startNext();
  }

  #end(thread: Thread): void {
    this.#idle.delete(thread);
    void thread.terminate();
  }

  #startNext(): void {
    const [next] = this.#waiting;
    if (!next || !this.#hasFree) return;
    const [claimed, timer] = next;
    clearTimeout(timer);
    this.#waiting.delete(claimed);
    this.#options.start(claimed);
  }

  /**
   * Returns the name under which the task's module exports it. The thread finds the task by this name, because a
   * function cannot be sent.
   */
  async #exportNameOf(task: ThreadTask): Promise<string> {
    const known = this.#exportNames.get(task);
    if (known !== undefined) return known;
    const exported = (await import(task.thread)) as Record<string, Partial<ThreadTask> | null | undefined>;
    const [name] = Object.entries(exported).find(([, value]) => value?.run === task.run) ?? [];
    if (name === undefined) {
      throw new ConfigError(
        `A task with \`thread\` is loaded again in its thread, so ${task.thread} must export it: ` +
          "export const name = task({ thread: import.meta.url, ... })",
      );
    }
    this.#exportNames.set(task, name);
    return name;
  }
}
