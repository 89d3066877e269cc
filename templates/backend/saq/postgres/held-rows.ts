/**
 * Rows that somebody's transaction holds, and that are to be changed when it has ended. However many wait, one statement
 * looks for all of them, and none of them makes the server log an error (103 held rows: 1,719 "could not obtain lock" in
 * 20 s, when each was tried alone by NOWAIT).
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

export class HeldRows {
  readonly #waiting = new Map<string, (() => void)[]>();
  #looking: Promise<void> | null = null;

  constructor(
    private readonly server: PostgresServer,
    private readonly queueName: string,
  ) {}

  /** Resolves when the row was free or gone at a look, or when no look is possible: trying again says what is wrong. */
  free(key: string): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(key);
      if (waiting) waiting.push(resolve);
      else this.#waiting.set(key, [resolve]);
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
      for (const key of free) this.#wake(key);
    }
  }

  #wake(key: string): void {
    const waiting = this.#waiting.get(key) ?? [];
    this.#waiting.delete(key);
    for (const resolve of waiting) resolve();
  }
}
