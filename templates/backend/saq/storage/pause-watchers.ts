/**
 * The listeners of `PauseStore.watch`. They see the results of reads in the order in which the reads began. After a
 * notification, the pauses are read once more, however many notifications have come.
 */
import type { Pause } from "../core/pause.js";
import { describe, type Logger } from "../logger.js";

type Listener = (pauses: readonly Pause[]) => void;

export interface PauseWatchersOptions {
  /** Reads the pauses and passes them on. */
  refresh: () => Promise<void>;
  isClosed: () => boolean;
  logger: Logger;
}

export class PauseWatchers {
  readonly #options: PauseWatchersOptions;
  readonly #listeners = new Set<Listener>();
  /** Number of reads that have begun, and the newest of them whose result was passed on. */
  #begun = 0;
  #passedOn = 0;
  /** True if a notification came after the last read began. */
  #isStale = false;
  #isRefreshing = false;

  constructor(options: PauseWatchersOptions) {
    this.#options = options;
  }

  add(listener: Listener): void {
    this.#listeners.add(listener);
  }

  remove(listener: Listener): void {
    this.#listeners.delete(listener);
  }

  /** Called before a read is sent. Returns its number. */
  begin(): number {
    return ++this.#begun;
  }

  /**
   * Passes the result of a read on, unless a later read has returned first: two connections may answer in any order,
   * and the older result does not contain the newest pause.
   */
  pass(read: number, pauses: readonly Pause[]): void {
    if (read < this.#passedOn) return;
    this.#passedOn = read;
    for (const listener of this.#listeners) listener(pauses);
  }

  /** Called when the pauses may have changed. */
  changed(): void {
    this.#isStale = true;
    if (!this.#isRefreshing) void this.#refreshWhileStale();
  }

  async #refreshWhileStale(): Promise<void> {
    const { refresh, isClosed, logger } = this.#options;
    this.#isRefreshing = true;
    try {
      while (this.#isStale && !isClosed()) {
        this.#isStale = false;
        await refresh();
      }
    } catch (error) {
      if (!isClosed())
        logger.debug(describe(error), "could not read the pauses; the next heartbeat reads them");
    } finally {
      this.#isRefreshing = false;
    }
  }
}
