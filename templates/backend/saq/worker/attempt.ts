/**
 * One run of one job. It ends exactly once: by the task's own return or throw, or, when it was interrupted and the
 * task did not end within the hard deadline, without it. What a task returns after its signal fired is ignored (W-23).
 */
import type { ClaimedJob } from "../broker.js";
import { InvalidJobError } from "../errors.js";
import type { JobFields } from "../job.js";
import type { Logger } from "../logger.js";
import type { AnyTask, ApplyOptions, Context, EnqueueArguments, ResultOf, RunningJob } from "../task.js";
import { encodeChange } from "../wire.js";

/** Why an attempt is to end before its task does. */
export type Interruption = "timeout" | "abort" | "shutdown" | "lost";

export type AttemptEnd =
  | { kind: "returned"; value: unknown }
  | { kind: "threw"; error: unknown }
  | { kind: "interrupted"; why: Interruption; reason: Error; overdue: boolean };

/** What an attempt needs of its worker. */
export interface AttemptHost {
  readonly queueName: string;
  readonly workerId: string;
  readonly logger: Logger;
  readonly hardDeadlineMs: number;
  now(): number;
  touch(claim: ClaimedJob, patch: string, removed: readonly string[]): Promise<boolean>;
  enqueue(task: AnyTask, args: unknown[]): Promise<{ readonly id: string } | null>;
  apply(task: AnyTask, args: unknown[]): Promise<unknown>;
  ended(attempt: Attempt, end: AttemptEnd): void;
}

/** For a thread to end once it is told to; only one inside a long call of native code takes longer. */
const terminationMs = 500;

const reasonNames = {
  timeout: "TimeoutError",
  abort: "AbortError",
  shutdown: "ShutdownError",
  lost: "LostError",
} as const;

function reasonFor(why: Interruption, text: string): Error {
  const error = new Error(text);
  error.name = reasonNames[why];
  // Stored as the job's error: the engine's own frames would tell nobody anything, and hide the name behind "Error".
  error.stack = `${error.name}: ${text}`;
  return error;
}

export class Attempt implements Context {
  readonly claim: ClaimedJob;
  readonly fields: JobFields;
  /** Settles when the task itself does, however late; null until it was called. */
  settled: Promise<void> | null = null;
  startedAt = 0;
  /** Ends the task whatever it does; there for those that run in a thread. */
  terminate: (() => void) | null = null;
  /** Somebody waits for its end (`apply`, `map`). Read before the task may set a meta of its own. */
  readonly awaited: boolean;
  readonly #host: AttemptHost;
  #controller: AbortController | null = null;
  #interruption: { why: Interruption; reason: Error } | null = null;
  #timer: NodeJS.Timeout | null = null;
  #ended = false;
  #log: Logger | null = null;
  #job: RunningJob | null = null;

  constructor(host: AttemptHost, claim: ClaimedJob, fields: JobFields) {
    this.#host = host;
    this.claim = claim;
    this.fields = fields;
    this.awaited = fields.meta.awaited === true;
  }

  get interruption(): Interruption | null {
    return this.#interruption?.why ?? null;
  }

  /** Calls the task, under its timeout. */
  run(call: (ctx: Context) => unknown): void {
    this.startedAt = performance.now();
    const { timeout } = this.fields;
    if (timeout)
      this.#timer = setTimeout(
        () => this.interrupt("timeout", `timed out after ${timeout} s`),
        timerMs(timeout),
      );
    let returned: unknown;
    try {
      returned = call(this);
    } catch (error) {
      returned = Promise.reject(error);
    }
    this.settled = Promise.resolve(returned).then(
      (value) => this.#end({ kind: "returned", value }),
      (error: unknown) => this.#end({ kind: "threw", error }),
    );
  }

  /** Fires the signal; the task has until the hard deadline. The first reason stands; false when it is not this one. */
  interrupt(why: Interruption, text: string): boolean {
    if (this.#ended || this.#interruption) return false;
    const reason = reasonFor(why, text);
    this.#interruption = { why, reason };
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#giveUp(), this.#host.hardDeadlineMs);
    this.#controller?.abort(reason);
    return true;
  }

  /** At the hard deadline. A thread is gone in milliseconds, and the attempt over with it: nobody runs beside the next one. */
  #giveUp(): void {
    if (!this.terminate) {
      this.#end(null);
      return;
    }
    this.#timer = setTimeout(() => this.#end(null), terminationMs);
    this.terminate();
  }

  /** `own` is how the task ended; null when it did not in time. */
  #end(own: AttemptEnd | null): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#timer) clearTimeout(this.#timer);
    const cut = this.#interruption;
    const end: AttemptEnd | null = cut ? { kind: "interrupted", ...cut, overdue: own === null } : own;
    if (end) this.#host.ended(this, end);
  }

  // --- what the task sees ---

  get job(): RunningJob {
    // On the prototype chain: reading a field costs nothing when the task does not look at its job.
    this.#job ??= Object.assign(Object.create(this.fields) as JobFields, {
      id: this.fields.key,
      update: (change: Parameters<RunningJob["update"]>[0]) => this.#update(change),
    });
    return this.#job;
  }

  get queue(): { readonly name: string } {
    return { name: this.#host.queueName };
  }

  get workerId(): string {
    return this.#host.workerId;
  }

  /** Made when asked for: most tasks never look at it. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#interruption) this.#controller.abort(this.#interruption.reason);
    }
    return this.#controller.signal;
  }

  get log(): Logger {
    this.#log ??= this.#host.logger.child({ job: this.fields.key, task: this.fields.function });
    return this.#log;
  }

  enqueue<T extends AnyTask>(task: T, ...args: EnqueueArguments<T>): Promise<{ readonly id: string } | null> {
    return this.#host.enqueue(task, args);
  }

  async apply<T extends AnyTask>(task: T, ...args: EnqueueArguments<T, ApplyOptions>): Promise<ResultOf<T>> {
    return (await this.#host.apply(task, args)) as ResultOf<T>;
  }

  async #update(change: { progress?: number; meta?: Record<string, unknown> }): Promise<void> {
    const { progress } = change;
    if (progress !== undefined && !(progress >= 0 && progress <= 1)) {
      throw new InvalidJobError(`progress must be a number of 0 to 1, got ${String(progress)}`);
    }
    if (this.#ended || this.#interruption) return;
    const touched = Math.round(this.#host.now());
    // Encoded before it is taken over: what cannot be written must not stand in the way of the job's end.
    const { patch, removed } = encodeChange({ ...change, touched });
    Object.assign(this.fields, change, { touched });
    if (!(await this.#host.touch(this.claim, patch, removed))) {
      this.interrupt(
        "lost",
        "this attempt no longer owns its job: it was aborted, or taken over by another worker",
      );
    }
  }
}

/** Node's timers hold 31 bits of milliseconds; a longer limit would fire at once. */
const timerMs = (seconds: number): number => Math.min(seconds * 1_000, 2 ** 31 - 1);
