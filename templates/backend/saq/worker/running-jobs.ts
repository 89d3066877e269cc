/** The attempts that run in one worker: which of them run, when the last one ends, and how all are interrupted. */
import { aloneGate } from "./alone-gate.js";
import type { Attempt } from "./attempt/attempt.js";

export class RunningJobs {
  readonly #attempts = new Map<string, Attempt>();
  /** The attempt that runs alone in this process, if there is one. */
  #aloneAttempt: Attempt | null = null;
  /** Keys of jobs that ended since the last call of `takeRecentKeys` and ran for at least `blockingMs`. */
  readonly #recentlyEnded = new Set<string>();
  /** True after an uncaught error that ends the worker. */
  #hasCrashed = false;
  readonly #idleWaiters: (() => void)[] = [];

  /** `blockingMs`: a shorter job cannot have blocked the event loop for long enough to be reported. */
  constructor(private readonly blockingMs: number) {}

  /** The running attempts by the keys of their jobs. */
  get attempts(): ReadonlyMap<string, Attempt> {
    return this.#attempts;
  }

  get size(): number {
    return this.#attempts.size;
  }

  /** `isAlone`: no other job runs in this process. */
  add(attempt: Attempt, isAlone: boolean): void {
    if (isAlone) this.#aloneAttempt = attempt;
    this.#attempts.set(attempt.fields.key, attempt);
    aloneGate.started();
  }

  /** Frees the slot of an attempt that has ended. `end` must follow when its settlement is sent. */
  freeSlot(attempt: Attempt): void {
    this.#attempts.delete(attempt.fields.key);
  }

  /** Called last. If the attempt ran alone, other jobs may start again. */
  end(attempt: Attempt, durationMs: number): void {
    if (durationMs > this.blockingMs) this.#recentlyEnded.add(attempt.fields.key);
    const wasAlone = attempt === this.#aloneAttempt;
    if (wasAlone) this.#aloneAttempt = null;
    aloneGate.ended(wasAlone);
    if (this.size > 0 || this.#idleWaiters.length === 0) return;
    for (const resolve of this.#idleWaiters.splice(0)) resolve();
  }

  /** Resolves when no job runs. */
  idle(): Promise<void> {
    if (this.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /** Interrupts all running jobs, because the worker stops or because an uncaught error ends it. */
  interruptAll(): void {
    for (const attempt of this.#attempts.values()) {
      if (this.#hasCrashed) attempt.interrupt("crash", "an uncaught error ends the worker");
      else attempt.interrupt("shutdown", "the worker is shutting down");
    }
  }

  /** Called when an uncaught error ends the worker. The jobs that run now count as lost. */
  markCrashed(): void {
    this.#hasCrashed = true;
  }

  /** Returns the keys of the jobs that may have blocked the event loop since the last call. */
  takeRecentKeys(): string[] {
    const keys = [...new Set([...this.#attempts.keys(), ...this.#recentlyEnded])];
    this.#recentlyEnded.clear();
    return keys;
  }
}
