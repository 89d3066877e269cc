/**
 * Bounds hooks in number and time: so many at once, each for so long. A hook that has not ended by then is left behind:
 * nothing can stop it, and one that never ends must not stop the worker.
 */
export interface HookLimiterOptions {
  /** Hooks at a time. */
  max: number;
  /** ms; 0: no limit */
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
  /** In the order of their beginning, which is that of their timeouts. */
  readonly #running = new Set<Running>();
  /** One for all of them. */
  #timer: NodeJS.Timeout | null = null;
  #overdue = 0;

  constructor(options: HookLimiterOptions) {
    this.#options = options;
  }

  /** `overdue`: left behind, and still not over. */
  get counts(): { running: number; waiting: number; overdue: number } {
    return { running: this.#taken, waiting: this.#waiting.length, overdue: this.#overdue };
  }

  /** Calls `work` when a place is free; the place is free again when it has ended. */
  async run(work: () => Promise<void>): Promise<void> {
    if (this.#taken >= this.#options.max) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#taken++;
    try {
      await work();
    } finally {
      // The next one takes over this place.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#taken--;
    }
  }

  /**
   * Waits for what one hook has returned.
   *
   * @throws what the hook throws; HookTimeoutError when it has not ended in time
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
