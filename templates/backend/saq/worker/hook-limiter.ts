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

interface Running {
  readonly giveUpAt: number;
  readonly giveUp: () => void;
}

export class HookLimiter {
  readonly #options: HookLimiterOptions;
  #taken = 0;
  #waiting: (() => void)[] = [];
  /** In the order of their start, which is also the order of their timeouts. */
  readonly #running = new Set<Running>();
  /** One timer for all running hooks. */
  #timer: NodeJS.Timeout | null = null;
  #overdue = 0;

  constructor(options: HookLimiterOptions) {
    this.#options = options;
  }

  /** `overdue`: hooks that timed out and still run. */
  get counts(): { running: number; waiting: number; overdue: number } {
    return { running: this.#taken, waiting: this.#waiting.length, overdue: this.#overdue };
  }

  /** Calls `work` when a place is free. The place is free again when `work` has ended. */
  async run(work: () => Promise<void>): Promise<void> {
    if (this.#taken >= this.#options.max) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#taken++;
    try {
      await work();
    } finally {
      // The next waiting call takes over this place.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#taken--;
    }
  }

  /**
   * Waits for the promise that a hook has returned.
   *
   * @throws what the hook throws; HookTimeoutError if the hook does not end in time
   */
  async end(returned: unknown): Promise<void> {
    if (!isThenable(returned)) return;
    const { timeoutMs } = this.#options;
    if (timeoutMs === 0) {
      await returned;
      return;
    }
    let running: Running | undefined;
    const late = new Promise<never>((_, reject) => {
      running = {
        giveUpAt: performance.now() + timeoutMs,
        giveUp: () => reject(new HookTimeoutError(timeoutMs / 1_000)),
      };
      this.#running.add(running);
    });
    this.#arm();
    try {
      await Promise.race([returned, late]);
    } catch (error) {
      if (error instanceof HookTimeoutError) this.#leaveBehind(returned);
      throw error;
    } finally {
      if (running) this.#running.delete(running);
      if (this.#running.size === 0 && this.#timer) {
        clearTimeout(this.#timer);
        this.#timer = null;
      }
    }
  }

  #leaveBehind(returned: PromiseLike<unknown>): void {
    this.#overdue++;
    const over = () => {
      this.#overdue--;
    };
    returned.then(over, over);
  }

  #arm(): void {
    const [oldest] = this.#running;
    if (!oldest || this.#timer) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = null;
        const now = performance.now();
        for (const running of this.#running) {
          if (running.giveUpAt > now) break;
          this.#running.delete(running);
          running.giveUp();
        }
        this.#arm();
      },
      Math.max(Math.ceil(oldest.giveUpAt - performance.now()), 0),
    );
  }
}

class HookTimeoutError extends Error {
  constructor(seconds: number) {
    super(`it has not ended within ${seconds} s (hookTimeout); the worker goes on without it`);
    this.name = "HookTimeoutError";
  }
}

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as Partial<PromiseLike<unknown>> | null | undefined)?.then === "function";
