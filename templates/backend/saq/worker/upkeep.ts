/** What a worker does beside running jobs, each at its own beat. A failing round is logged and the beat goes on (W-6). */
import type { ProblemLog } from "../problem-log.js";

export interface Chore {
  name: string;
  /** s */
  every: number;
  /** Fires just after whole multiples of `every` on this clock (epoch ms), as due jobs do. */
  alignedTo?: () => number;
  /** The first round is at the start. */
  atOnce?: boolean;
  /**
   * No round is due before that, on the clock of `alignedTo`; Infinity: none before `resume`. Asked after each round. A
   * clock that is set may make it any time, so rounds are never skipped for longer than `longestRestMs`.
   */
  notBefore?: () => number;
  run: () => Promise<unknown>;
}

/** A timer may fire a little before the database's second begins; a little later is sure. */
const alignmentSlackMs = 5;
/** Rounds are skipped for at most this long, whatever the clocks say. */
const longestRestMs = 10_000;

export class Upkeep {
  readonly #timers = new Map<Chore, NodeJS.Timeout>();
  readonly #running = new Set<Promise<unknown>>();
  /** Chores that skip rounds: a timer that only finds that there is nothing to do costs 0.2 ms of CPU a time. */
  readonly #resting = new Set<Chore>();
  #stopped = false;

  constructor(
    private readonly chores: readonly Chore[],
    private readonly problems: ProblemLog,
  ) {}

  start(): void {
    for (const chore of this.chores) chore.atOnce ? this.#begin(chore) : this.#plan(chore);
  }

  /** Ends the beats and waits for the rounds under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    await Promise.allSettled(this.#running);
  }

  /** Chores that rest may have something to do again, from their next round on. */
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
