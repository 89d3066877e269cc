/**
 * Rows that somebody's transaction holds, and that are to be changed when it has ended. However many wait, one
 * statement looks for all of them, and none of them makes the server log an error (103 held rows: 1,719 "could not
 * obtain lock" in 20 s, when each was tried alone by NOWAIT).
 */
import type { PostgresServer } from "./server.js";

/** Between two looks; longer after each look that found none free. */
const shortestPauseMs = 100;
const longestPauseMs = 1_000;

/** Somebody's transaction holds the row. Has the code of PostgreSQL's own error. */
export class RowHeldError extends Error {
  readonly code = "55P03";

  constructor(key: string) {
    super(`Somebody's transaction holds the row of job ${JSON.stringify(key)}`);
    this.name = "RowHeldError";
  }
}

interface Waiter {
  readonly until: number;
  readonly resolve: () => void;
}

export class HeldRows {
  readonly #waiting = new Map<string, Waiter[]>();
  #looking: Promise<void> | null = null;

  constructor(
    private readonly server: PostgresServer,
    private readonly queueName: string,
  ) {}

  /**
   * Resolves when a look has found the row free or gone, when no look is possible (trying again says what is wrong), or
   * soon after `until`, by performance.now().
   */
  free(key: string, until: number): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(key);
      if (waiting) waiting.push({ until, resolve });
      else this.#waiting.set(key, [{ until, resolve }]);
      this.#looking ??= this.#look().finally(() => {
        this.#looking = null;
      });
    });
  }

  async #look(): Promise<void> {
    for (let pauseMs = shortestPauseMs; this.#waiting.size > 0; ) {
      await this.server.pause(pauseMs);
      const asked = [...this.#waiting.keys()];
      const free = await this.server
        .query<{ key: string }>(this.server.statements.freeRows, [this.queueName, asked])
        .then((rows) => rows.map(({ key }) => key))
        .catch(() => asked);
      pauseMs = free.length > 0 ? shortestPauseMs : Math.min(2 * pauseMs, longestPauseMs);
      for (const key of free) this.#wake(key, Number.POSITIVE_INFINITY);
      for (const key of this.#waiting.keys()) this.#wake(key, performance.now());
    }
  }

  /** Those that wait no longer than until then. */
  #wake(key: string, now: number): void {
    const waiting = this.#waiting.get(key) ?? [];
    const left = waiting.filter(({ until }) => until > now);
    if (left.length > 0) this.#waiting.set(key, left);
    else this.#waiting.delete(key);
    for (const { until, resolve } of waiting) if (until <= now) resolve();
  }
}
