/**
 * Runs the periodic tasks of a worker, each at its own interval. A failed round is logged, and the next rounds follow.
 */
import type { ProblemLog } from "../problem-log.js";

export interface Chore {
  name: string;
  /** Interval, s. */
  every: number;
  /** Rounds begin just after whole multiples of `every` on this clock (epoch ms), when jobs become due. */
  alignedTo?: () => number;
  /** The first round begins at the start. */
  atOnce?: boolean;
  /**
   * No round is due before this time on the clock of `alignedTo`; Infinity: none before `resume`. Called after each
   * round. A step of the clock may change this time to anything, so a finite time skips rounds for at most
   * `longestRestMs`.
   */
  notBefore?: () => number;
  run: () => Promise<unknown>;
}

/** Added to each aligned wait, because a timer may fire shortly before the database's second begins. */
const alignmentSlackMs = 5;
/** Rounds are skipped for at most this time, whatever the clocks say. */
const longestRestMs = 10_000;

export class Upkeep {
  readonly #timers = new Map<Chore, NodeJS.Timeout>();
  readonly #running = new Set<Promise<unknown>>();
  /**
   * Chores that skip rounds. They have no timer for each round, because one that finds nothing to do costs 0.2 ms of
   * CPU.
   */
  readonly #resting = new Set<Chore>();
  #stopped = false;

  constructor(
    private readonly chores: readonly Chore[],
    private readonly problems: ProblemLog,
  ) {}

  start(): void {
    for (const chore of this.chores) chore.atOnce ? this.#begin(chore) : this.#plan(chore);
  }

  /** Stops the timers and waits for the rounds that are running. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    await Promise.allSettled(this.#running);
  }

  /** Plans the next round of chores that skip rounds, because they may have something to do again. */
  resume(): void {
    for (const chore of this.#resting) {
      clearTimeout(this.#timers.get(chore));
      this.#plan(chore);
    }
  }

  #plan(chore: Chore): void {
    if (this.#stopped) return;
    const period = chore.every * 1_000;
    const now = chore.alignedTo?.() ?? 0;
    const next = period - (now % period) + (chore.alignedTo ? alignmentSlackMs : 0);
    const skipped = Math.max(0, Math.ceil(((chore.notBefore?.() ?? 0) - now - next) / period));
    if (skipped > 0) this.#resting.add(chore);
    else this.#resting.delete(chore);
    if (skipped === Number.POSITIVE_INFINITY) return;
    const wait = next + Math.min(skipped, Math.floor(longestRestMs / period)) * period;
    this.#timers.set(
      chore,
      setTimeout(() => this.#begin(chore), wait),
    );
  }

  #begin(chore: Chore): void {
    this.#resting.delete(chore);
    const round = this.#round(chore).finally(() => {
      this.#running.delete(round);
      this.#plan(chore);
    });
    this.#running.add(round);
  }

  async #round(chore: Chore): Promise<void> {
    try {
      await chore.run();
      this.problems.succeeded(chore.name);
    } catch (error) {
      this.problems.failed({
        source: chore.name,
        error,
        message: "Upkeep task failed unexpectedly",
      });
    }
  }
}
