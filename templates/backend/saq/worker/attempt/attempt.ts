/**
 * One run of one job. An attempt ends exactly once: when the task returns or throws, or at the hard deadline if the
 * attempt was interrupted and the task still runs. What a task returns after its signal fired is ignored.
 */

import { setMaxListeners } from "node:events";
import type { Interrupted } from "../../broker.js";
import { withFittingHistory } from "../../core/attempt-history.js";
import { isLarger, tooLarge } from "../../core/byte-size.js";
import type { ClaimedJob } from "../../core/claim.js";
import type { JobFields } from "../../core/job.js";
import { awaitedIn, withEngineMembers } from "../../core/job-meta.js";
import type { TransactionClient } from "../../core/transaction-client.js";
import { encodeChange } from "../../core/wire.js";
import { InvalidJobError, JobLostError, SaqError } from "../../errors.js";
import { snoozeOf } from "../../tasks/snooze.js";
import type { RunningJob } from "../../tasks/task.js";
import type { AttemptTrace } from "../../telemetry/telemetry.js";
import { longestTimerMs } from "../../timers.js";
import type { AttemptResult, Interruption } from "../settlement/settlement.js";
import type { TransactionalFinish } from "../settlement/transactional-finish.js";

/** What an attempt needs from its worker. */
export interface AttemptHost {
  readonly hardDeadlineMs: number;
  /** Maximum size of a new `meta`, bytes of its JSON. */
  readonly maxBytes: number;
  now(): number;
  /**
   * Stores a change, and resolves when it is stored. While the database is unreachable, it waits, at most until the
   * attempt is over. Returns false if the attempt does not own the job any more.
   */
  heartbeat(attempt: Attempt, patch: string, removed: readonly string[]): Promise<boolean>;
  /** Stores progress and a heartbeat as soon as possible. Never rejects. */
  sendProgress(attempt: Attempt, change: Pick<Partial<JobFields>, "progress">): Promise<void>;
  /**
   * Called when storage refused a change. Returns the reason why the attempt must end; null if it still owns its job.
   */
  findInterruption(claim: ClaimedJob): Promise<Interrupted["reason"] | null>;
  /**
   * Settles the job in the task's own transaction. Returns null if the attempt does not own the job any more, or if the
   * transaction of a previous `ctx.finish` is open or has committed.
   */
  finish(attempt: Attempt, result: unknown, client: TransactionClient): Promise<TransactionalFinish | null>;
  ended(attempt: Attempt, end: AttemptResult): void;
}

/** Timeout for a thread to end after `terminate`, ms. Only a thread inside a long call of native code takes longer. */
const terminationTimeoutMs = 500;

/** The name of the signal's abort reason. */
const reasonNames = {
  timeout: "TimeoutError",
  abort: "AbortError",
  shutdown: "ShutdownError",
  lost: "LostError",
  crash: "ShutdownError",
} as const;

function abortReason(interruption: Interruption, text: string): Error {
  const error = new Error(text);
  error.name = reasonNames[interruption];
  // The stack is stored as the job's error. The engine's own frames would be useless there, and its first line would
  // begin with "Error" instead of the name.
  error.stack = `${error.name}: ${text}`;
  return error;
}

/**
 * Attempts that started in this turn of the event loop. Many of them end within the same turn, so they never need a
 * timer (this saves 1.5 % of a no-op job's CPU).
 */
let startedInThisTurn: Attempt[] = [];

/**
 * Saved when the module loads. If a test replaced `setImmediate` by a fake that never fires, all later jobs would have
 * no timeout.
 */
const atEndOfTurn = setImmediate;

function startTimerLater(attempt: Attempt): void {
  if (startedInThisTurn.push(attempt) > 1) return;
  atEndOfTurn(() => {
    const attempts = startedInThisTurn;
    startedInThisTurn = [];
    for (const started of attempts) started.startTimer();
  });
}

export class Attempt {
  readonly claim: ClaimedJob;
  readonly fields: JobFields;
  /** Resolves when the task itself ends, which may be after the end of the attempt; null until the task is called. */
  taskEnded: Promise<void> | null = null;
  startedAt = 0;
  /** Time of the last heartbeat, by performance.now(): a change of the system clock must not end a healthy job. */
  lastHeartbeatAt = 0;
  /** Terminates the thread of the task; null if the task does not run in a thread. */
  terminate: (() => void) | null = null;
  /**
   * Who waits for the end of the job (`apply`, `map`): true = any process, text = the process with this address, false
   * = nobody. Read at the start, before the task can change `meta`.
   */
  readonly awaited: boolean | string;
  /** The span of the attempt; null without OpenTelemetry, and until the task or its first hook is called. */
  trace: AttemptTrace | null = null;
  /** What the task threw, or the reason of the interruption; undefined while the task runs and after it returned. */
  exception: unknown;
  readonly #host: AttemptHost;
  #controller: AbortController | null = null;
  /** Why the attempt must end, and the abort reason of its signal; null until it is interrupted. */
  #interrupted: { interruption: Interruption; reason: Error } | null = null;
  /** The settlement that the task wrote itself (`ctx.finish`). It is valid if its transaction commits. */
  transactionalFinish: TransactionalFinish | null = null;
  /** True if the task has changed the stored document since the claim. */
  hasUpdated = false;
  #isFinishing = false;
  #timer: NodeJS.Timeout | null = null;
  #hasEnded = false;
  /** Callbacks that end the waits in `update`. Created at the first wait, because most tasks never wait. */
  #waitStoppers: Set<() => void> | null = null;

  constructor(host: AttemptHost, claim: ClaimedJob, fields: JobFields) {
    this.#host = host;
    this.claim = claim;
    this.fields = fields;
    this.awaited = awaitedIn(fields.meta);
  }

  get interruption(): Interruption | null {
    return this.#interrupted?.interruption ?? null;
  }

  /** The abort reason of the signal; null until the attempt is interrupted. */
  get interruptReason(): Error | null {
    return this.#interrupted?.reason ?? null;
  }

  /** Time since the call of the task or its first hook, ms; 0 if neither was called. */
  get durationMs(): number {
    return this.startedAt > 0 ? performance.now() - this.startedAt : 0;
  }

  /** Calls the task, and starts the timeout of its job. */
  run(call: () => unknown): void {
    this.startedAt = performance.now();
    this.lastHeartbeatAt = this.startedAt;
    if (this.fields.timeout) startTimerLater(this);
    let returned: unknown;
    try {
      returned = call();
    } catch (error) {
      returned = Promise.reject(error);
    }
    this.taskEnded = Promise.resolve(returned).then(
      (value) => this.#end({ kind: "returned", value }),
      (error: unknown) => this.#end(thrownResult(error)),
    );
  }

  /** Starts the timer of the timeout, which counts from the call of the task. */
  startTimer(): void {
    const { timeout } = this.fields;
    if (!timeout || this.isOver) return;
    const passed = performance.now() - this.startedAt;
    this.#timer = setTimeout(
      () => this.interrupt("timeout", `timed out after ${timeout} s`),
      Math.max(timerMs(timeout) - passed, 0),
    );
  }

  /**
   * Fires the signal. The task must then end within the hard deadline. Only the first reason counts. Returns false if
   * this reason is ignored.
   */
  interrupt(interruption: Interruption, text: string): boolean {
    if (this.isOver) return false;
    // After `ctx.finish` the row is no longer active, which looks like a loss. The settlement finds out whether it is
    // one.
    if (interruption === "lost" && this.transactionalFinish) return false;
    const reason = abortReason(interruption, text);
    this.#interrupted = { interruption, reason };
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#onHardDeadline(), this.#host.hardDeadlineMs);
    this.#controller?.abort(reason);
    for (const stop of this.#waitStoppers ?? []) stop();
    return true;
  }

  /**
   * Called at the hard deadline. If the task runs in a thread, terminates the thread. The thread ends within
   * milliseconds and the attempt ends with it, so that the next attempt does not run at the same time as this one.
   */
  #onHardDeadline(): void {
    if (!this.terminate) {
      this.#end(null);
      return;
    }
    this.#timer = setTimeout(() => this.#end(null), terminationTimeoutMs);
    this.terminate();
  }

  /** Ends the attempt. `taskResult`: how the task ended; null if it did not end before the hard deadline. */
  #end(taskResult: AttemptResult | null): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    if (this.#timer) clearTimeout(this.#timer);
    const end: AttemptResult | null = this.#interrupted
      ? { kind: "interrupted", ...this.#interrupted, overdue: taskResult === null }
      : taskResult;
    if (!end) return;
    if (end.kind === "threw") this.exception = end.error;
    else if (end.kind === "interrupted") this.exception = end.reason;
    this.#host.ended(this, end);
  }

  /** Created on first use, because most tasks never read it. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      // A task may pass the signal to any number of calls; by default Node.js warns about more than ten listeners.
      setMaxListeners(0, this.#controller.signal);
      if (this.#interrupted) this.#controller.abort(this.#interrupted.reason);
    }
    return this.#controller.signal;
  }

  /** Settles the job in the task's own transaction; see `Context.finish`. */
  async finish<R>(result: R, client: TransactionClient): Promise<R> {
    this.#throwIfOver();
    if (this.#isFinishing) throw alreadyFinished(this.fields.key);
    this.#isFinishing = true;
    try {
      const finish = await this.#host.finish(this, result, client);
      this.#throwIfOver();
      if (!finish) {
        if (this.transactionalFinish) throw alreadyFinished(this.fields.key);
        throw new JobLostError(this.fields.key, "it was aborted, or taken over by another worker");
      }
      this.transactionalFinish = finish;
      return result;
    } finally {
      this.#isFinishing = false;
    }
  }

  #throwIfOver(): void {
    const reason = this.interruptReason;
    if (reason) throw new JobLostError(this.fields.key, reason.message, { cause: reason });
    if (this.#hasEnded) throw new JobLostError(this.fields.key, "its task has ended");
  }

  /** Stores new values of the job's `progress` and `meta`. Counts as a heartbeat. */
  async update(requested: Parameters<RunningJob["update"]>[0]): Promise<void> {
    const change: Partial<Pick<JobFields, "progress" | "meta">> = {};
    const { progress, meta } = requested;
    if (progress !== undefined) {
      if (!(progress >= 0 && progress <= 1))
        throw new InvalidJobError(`progress must be a number of 0 to 1, got ${String(progress)}`);
      change.progress = progress;
    }
    if (meta !== undefined) {
      if (typeof meta !== "object" || meta === null || Array.isArray(meta))
        throw new InvalidJobError(`meta must be an object, got ${JSON.stringify(meta)}`);
      const { maxBytes } = this.#host;
      change.meta = withFittingHistory(withEngineMembers(this.fields.meta, meta), maxBytes);
      const text = JSON.stringify(change.meta);
      if (isLarger(text, maxBytes))
        throw new InvalidJobError(tooLarge("ctx.job.update: meta", text, maxBytes));
    }
    if (this.isOver) return;
    // `touched` is always later than `started`. The difference shows sweepers that the job was started.
    const touched = Math.max(Math.round(this.#host.now()), this.fields.started + 1);
    // Encode before the fields change. A value that cannot be encoded must not make the settlement fail later.
    const { patch, removed } = encodeChange({ ...change, touched });
    Object.assign(this.fields, change, { touched });
    this.lastHeartbeatAt = performance.now();
    // The task's own transaction may hold the row lock, so a wait for the row would be a deadlock.
    if (this.#isFinishing || this.transactionalFinish) return;
    this.hasUpdated = true;
    // A job that only computes continues during an outage. A job that reports progress must continue too.
    if (meta === undefined) await this.#host.sendProgress(this, change);
    else await this.#waitUntilOver(this.#store(patch, removed));
  }

  /** True if the attempt has ended or must end: nothing more is stored for it. */
  get isOver(): boolean {
    return this.#hasEnded || this.#interrupted !== null;
  }

  async #store(patch: string, removed: readonly string[]): Promise<void> {
    if (!(await this.#host.heartbeat(this, patch, removed))) await this.checkOwnership();
  }

  /** Waits for `work`, at most until the attempt is over, because a task that must end must not wait for storage. */
  async #waitUntilOver(work: Promise<void>): Promise<void> {
    let stop: () => void = () => {};
    const over = new Promise<void>((resolve) => {
      stop = resolve;
    });
    this.#waitStoppers ??= new Set();
    this.#waitStoppers.add(stop);
    try {
      await Promise.race([work, over]);
    } finally {
      this.#waitStoppers.delete(stop);
    }
  }

  /** Ends the attempt if it does not own the job any more. */
  async checkOwnership(): Promise<void> {
    // An aborted job must be settled as aborted. A lost job is not settled, so the row would stay `aborting`.
    const interruption = await this.#host.findInterruption(this.claim);
    if (interruption === "abort") this.interrupt("abort", "aborted");
    else if (interruption) this.interrupt("lost", lossText[interruption]);
  }
}

function thrownResult(error: unknown): AttemptResult {
  const snooze = snoozeOf(error);
  return snooze ? { kind: "snoozed", snooze } : { kind: "threw", error };
}

/** Reasons why an attempt does not own its job any more. */
export const lossText = { lost: "taken over by another worker", gone: "its row was deleted" } as const;

const alreadyFinished = (key: string): SaqError =>
  new SaqError(
    "already_finished",
    `ctx.finish was called twice for job ${key}: the transaction of the first call is open or has committed. Call ` +
      "ctx.finish once, as the last statement. Call it again only after a rollback",
  );

/** Node.js timers hold 31 bits of milliseconds; a longer timer would fire at once. */
const timerMs = (seconds: number): number => Math.min(seconds * 1_000, longestTimerMs);
