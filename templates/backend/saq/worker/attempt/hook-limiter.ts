/**
 * Limits how many hooks run at a time, and how long each may take. After the timeout the worker no longer waits for a
 * hook: nothing can stop the hook, and one that never ends must not block the worker.
 */
export interface HookLimiterOptions {
  /** Maximum number of hooks at a time. */
  max: number;
  /** Timeout of each hook, ms; 0 = no limit. */
  timeoutMs: number;
}

interface TimedHook {
  /** performance.now() */
  readonly deadline: number;
  readonly onTimeout: () => void;
}

export class HookLimiter {
  readonly #options: HookLimiterOptions;
  #usedPlaces = 0;
  #waiting: (() => void)[] = [];
  /** Running hooks with a timeout, in the order of their start, which is also the order of their deadlines. */
  readonly #timed = new Set<TimedHook>();
  /** One timer for all of them. */
  #timer: NodeJS.Timeout | null = null;
  #overdue = 0;

  constructor(options: HookLimiterOptions) {
    this.#options = options;
  }

  /** `overdue`: hooks that timed out and still run. */
  get counts(): { running: number; waiting: number; overdue: number } {
    return { running: this.#usedPlaces, waiting: this.#waiting.length, overdue: this.#overdue };
  }

  /** Calls `work` when a place is free. The place is free again when `work` has ended. */
  async run(work: () => Promise<void>): Promise<void> {
    if (this.#usedPlaces >= this.#options.max)
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#usedPlaces++;
    try {
      await work();
    } finally {
      // The next waiting call takes over this place.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#usedPlaces--;
    }
  }

  /**
   * Waits for the promise that a hook has returned.
   *
   * @throws what the hook throws; HookTimeoutError if the hook does not end in time
   */
  async waitFor(returned: unknown): Promise<void> {
    if (!isThenable(returned)) return;
    const { timeoutMs } = this.#options;
    if (timeoutMs === 0) {
      await returned;
      return;
    }
    let timed: TimedHook | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timed = {
        deadline: performance.now() + timeoutMs,
        onTimeout: () => reject(new HookTimeoutError(timeoutMs / 1_000)),
      };
      this.#timed.add(timed);
    });
    this.#startTimer();
    try {
      await Promise.race([returned, timeout]);
    } catch (error) {
      if (error instanceof HookTimeoutError) this.#countOverdue(returned);
      throw error;
    } finally {
      if (timed) this.#timed.delete(timed);
      if (this.#timed.size === 0 && this.#timer) {
        clearTimeout(this.#timer);
        this.#timer = null;
      }
    }
  }

  #countOverdue(returned: PromiseLike<unknown>): void {
    this.#overdue++;
    const ended = () => {
      this.#overdue--;
    };
    returned.then(ended, ended);
  }

  #startTimer(): void {
    const [oldest] = this.#timed;
    if (!oldest || this.#timer) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = null;
        const now = performance.now();
        for (const hook of this.#timed) {
          if (hook.deadline > now) break;
          this.#timed.delete(hook);
          hook.onTimeout();
        }
        this.#startTimer();
      },
      Math.max(Math.ceil(oldest.deadline - performance.now()), 0),
    );
  }
}

/** A hook did not end in time. The worker no longer waits for it. */
export class HookTimeoutError extends Error {
  constructor(seconds: number) {
    super(`the hook has not ended within ${seconds} s (hookTimeout); the worker no longer waits for it`);
    this.name = "HookTimeoutError";
  }
}

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as Partial<PromiseLike<unknown>> | null | undefined)?.then === "function";
