/**
 * One run of one job. It ends exactly once: by the task's own return or throw, or, when it was interrupted and the
 * task did not end within the hard deadline, without it. What a task returns after its signal fired is ignored (W-23).
 */
import { setMaxListeners } from "node:events";
import type { ClaimedJob, Interrupted } from "../broker.js";
import { isLarger, tooLarge } from "../byte-size.js";
import { InvalidJobError, JobLostError, SaqError } from "../errors.js";
import type { JobFields } from "../job.js";
import type { RunningJob, TransactionClient } from "../tasks/task.js";
import { awaitedIn, withMarks } from "../transitions.js";
import { encodeChange } from "../wire.js";
import type { AttemptEnd, Interruption } from "./outcome.js";
import type { OwnEnd } from "./own-end.js";

/** What an attempt needs of its worker. */
export interface AttemptHost {
  readonly hardDeadlineMs: number;
  /** Of a new `meta`. */
  readonly maxBytes: number;
  now(): number;
  /** Stores what a task must be able to rely on. Waits for a database that is away until the attempt is over. */
  touch(attempt: Attempt, patch: string, removed: readonly string[]): Promise<boolean>;
  /** Stores progress and signs of life as soon as it can. Never rejects. */
  progressed(attempt: Attempt, change: Pick<Partial<JobFields>, "progress">): Promise<void>;
  /** Why a job is to end that storage says is not ours to change; null when it is ours after all. */
  endedElsewhere(claim: ClaimedJob): Promise<Interrupted["why"] | null>;
  /** Null when the job is not this attempt's any more, or an earlier own end of it counts. */
  finish(attempt: Attempt, result: unknown, client: TransactionClient): Promise<OwnEnd | null>;
  ended(attempt: Attempt, end: AttemptEnd): void;
}

/** For a thread to end once it is told to; only one inside a long call of native code takes longer. */
const terminationMs = 500;

const reasonNames = {
  timeout: "TimeoutError",
  abort: "AbortError",
  shutdown: "ShutdownError",
  lost: "LostError",
  crash: "ShutdownError",
} as const;

function reasonFor(why: Interruption, text: string): Error {
  const error = new Error(text);
  error.name = reasonNames[why];
  // Stored as the job's error: the engine's own frames would tell nobody anything, and hide the name behind "Error".
  error.stack = `${error.name}: ${text}`;
  return error;
}

/** Called in this turn of the event loop: many tasks end within it, and need no timer (1.5 % of a no-op job's CPU). */
let untimed: Attempt[] = [];

/** Taken while the module loads: a test that replaces the timers for a while would leave all later jobs without theirs. */
const atEndOfTurn = setImmediate;

function timeLater(attempt: Attempt): void {
  if (untimed.push(attempt) > 1) return;
  atEndOfTurn(() => {
    const attempts = untimed;
    untimed = [];
    for (const one of attempts) one.time();
  });
}

export class Attempt {
  readonly claim: ClaimedJob;
  readonly fields: JobFields;
  /** Settles when the task itself does, however late; null until it was called. */
  settled: Promise<void> | null = null;
  startedAt = 0;
  /** The last sign of life of its task, by performance.now(): a clock that is set must not end a healthy job. */
  aliveAt = 0;
  /** Ends the task whatever it does; there for those that run in a thread. */
  terminate: (() => void) | null = null;
  /** Somebody waits for its end (`apply`, `map`). Read before the task may set a meta of its own. */
  readonly awaited: boolean | string;
  /** What the task threw, or why it was interrupted; undefined while it runs and when it returned. */
  exception: unknown;
  readonly #host: AttemptHost;
  #controller: AbortController | null = null;
  #interruption: { why: Interruption; reason: Error } | null = null;
  /** What the task has written about the end itself; it counts if its transaction commits. */
  ownEnd: OwnEnd | null = null;
  #finishing = false;
  #timer: NodeJS.Timeout | null = null;
  #ended = false;
  /** Ends the waits of updates; made when one waits, which most tasks never have. */
  #waits: Set<() => void> | null = null;

  constructor(host: AttemptHost, claim: ClaimedJob, fields: JobFields) {
    this.#host = host;
    this.claim = claim;
    this.fields = fields;
    this.awaited = awaitedIn(fields.meta);
  }

  get interruption(): Interruption | null {
    return this.#interruption?.why ?? null;
  }

  /** The reason of its signal, once it has to end. */
  get cutReason(): Error | null {
    return this.#interruption?.reason ?? null;
  }

  /** Calls the task, under its timeout. */
  run(call: () => unknown): void {
    this.startedAt = performance.now();
    this.aliveAt = this.startedAt;
    if (this.fields.timeout) timeLater(this);
    let returned: unknown;
    try {
      returned = call();
    } catch (error) {
      returned = Promise.reject(error);
    }
    this.settled = Promise.resolve(returned).then(
      (value) => this.#end({ kind: "returned", value }),
      (error: unknown) => this.#end({ kind: "threw", error }),
    );
  }

  /** Starts the clock of its timeout, which has run since the task was called. */
  time(): void {
    const { timeout } = this.fields;
    if (!timeout || this.#ended || this.#interruption) return;
    const passed = performance.now() - this.startedAt;
    this.#timer = setTimeout(
      () => this.interrupt("timeout", `timed out after ${timeout} s`),
      Math.max(timerMs(timeout) - passed, 0),
    );
  }

  /** Fires the signal; the task has until the hard deadline. The first reason stands; false when it is not this one. */
  interrupt(why: Interruption, text: string): boolean {
    if (this.#ended || this.#interruption) return false;
    // To the rest of the world a job that is finished is nobody's. What became of it is settled at the attempt's end.
    if (why === "lost" && this.ownEnd) return false;
    const reason = reasonFor(why, text);
    this.#interruption = { why, reason };
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#giveUp(), this.#host.hardDeadlineMs);
    this.#controller?.abort(reason);
    for (const stop of this.#waits ?? []) stop();
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
    if (!end) return;
    if (end.kind === "threw") this.exception = end.error;
    else if (end.kind === "interrupted") this.exception = end.reason;
    this.#host.ended(this, end);
  }

  /** Made when asked for: most tasks never look at it. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      // A task may give it to as many calls as it wants; Node warns of more than ten.
      setMaxListeners(0, this.#controller.signal);
      if (this.#interruption) this.#controller.abort(this.#interruption.reason);
    }
    return this.#controller.signal;
  }

  /** Ends the job in the task's own transaction; see `Context.finish`. */
  async finish<R>(result: R, client: TransactionClient): Promise<R> {
    this.#checkOpen();
    if (this.#finishing) throw alreadyFinished(this.fields.key);
    this.#finishing = true;
    try {
      const written = await this.#host.finish(this, result, client);
      this.#checkOpen();
      if (!written) {
        if (this.ownEnd) throw alreadyFinished(this.fields.key);
        throw new JobLostError(this.fields.key, "it was aborted, or taken over by another worker");
      }
      this.ownEnd = written;
      return result;
    } finally {
      this.#finishing = false;
    }
  }

  #checkOpen(): void {
    const cut = this.#interruption?.reason;
    if (cut) throw new JobLostError(this.fields.key, cut.message, { cause: cut });
    if (this.#ended) throw new JobLostError(this.fields.key, "its task has ended");
  }

  /** Stores what the task changes about its job, which counts as a sign of life (J-20). */
  async update(wanted: Parameters<RunningJob["update"]>[0]): Promise<void> {
    const change: Partial<Pick<JobFields, "progress" | "meta">> = {};
    const { progress, meta } = wanted;
    if (progress !== undefined) {
      if (!(progress >= 0 && progress <= 1))
        throw new InvalidJobError(`progress must be a number of 0 to 1, got ${String(progress)}`);
      change.progress = progress;
    }
    if (meta !== undefined) {
      if (typeof meta !== "object" || meta === null || Array.isArray(meta))
        throw new InvalidJobError(`meta must be an object, got ${JSON.stringify(meta)}`);
      change.meta = withMarks(this.fields.meta, meta);
      const text = JSON.stringify(change.meta);
      if (isLarger(text, this.#host.maxBytes))
        throw new InvalidJobError(tooLarge("ctx.job.update: meta", text, this.#host.maxBytes));
    }
    if (this.#ended || this.#interruption) return;
    // Later than the start in any case: that it has been written shows that the job was started.
    const touched = Math.max(Math.round(this.#host.now()), this.fields.started + 1);
    // Encoded before it is taken over: what cannot be written must not stand in the way of the job's end.
    const { patch, removed } = encodeChange({ ...change, touched });
    Object.assign(this.fields, change, { touched });
    this.aliveAt = performance.now();
    // The task's own transaction may hold the row: waiting for it here would be waiting for ourselves.
    if (this.#finishing || this.ownEnd) return;
    this.claim.ending = null;
    // A job that only computes outlives an outage; one that tells its progress must outlive it as well.
    if (meta === undefined) await this.#host.progressed(this, change);
    else await this.#untilOver(this.#store(patch, removed));
  }

  /** It has ended or is to end: nothing more is stored for it. */
  get isOver(): boolean {
    return this.#ended || this.#interruption !== null;
  }

  async #store(patch: string, removed: readonly string[]): Promise<void> {
    if (!(await this.#host.touch(this, patch, removed))) await this.findOwner();
  }

  /** Resolves before the work does when the attempt is over first: a task that is to end must not sit in a wait. */
  async #untilOver(work: Promise<void>): Promise<void> {
    let stop: () => void = () => {};
    const over = new Promise<void>((resolve) => {
      stop = resolve;
    });
    this.#waits ??= new Set();
    this.#waits.add(stop);
    try {
      await Promise.race([work, over]);
    } finally {
      this.#waits.delete(stop);
    }
  }

  /** Ends the attempt when the job is not its own any more. */
  async findOwner(): Promise<void> {
    // An abort must end as one: taken for a loss, nobody would write it, and the job would stay `aborting`.
    const why = await this.#host.endedElsewhere(this.claim);
    if (why === "abort") this.interrupt("abort", "aborted");
    else if (why) this.interrupt("lost", lossText[why]);
  }
}

/** Why an attempt does not own its job any more. */
export const lossText = { lost: "taken over by another worker", gone: "its row was deleted" } as const;

const alreadyFinished = (key: string): SaqError =>
  new SaqError(
    "already_finished",
    `ctx.finish was called twice for job ${key}: its first transaction is open or has committed. Call it once, as the ` +
      "last statement; again only after a rollback",
  );

/** Node's timers hold 31 bits of milliseconds; a longer limit would fire at once. */
const timerMs = (seconds: number): number => Math.min(seconds * 1_000, 2 ** 31 - 1);
