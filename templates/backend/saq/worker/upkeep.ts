/** What a worker does beside running jobs, each at its own beat. A failing round is logged and the beat goes on (W-6). */
import { describe, type Logger } from "../logger.js";

export interface Chore {
  name: string;
  /** s */
  every: number;
  /** Fires just after whole multiples of `every` on this clock (epoch ms), as due jobs do. */
  alignedTo?: () => number;
  /** The first round is at the start. */
  atOnce?: boolean;
  run: () => Promise<unknown>;
}

/** A timer may fire a little before the database's second begins; a little later is sure. */
const alignmentSlackMs = 5;

export class Upkeep {
  readonly #timers = new Map<Chore, NodeJS.Timeout>();
  readonly #running = new Set<Promise<unknown>>();
  readonly #failing = new Set<Chore>();
  #stopped = false;

  constructor(
    private readonly chores: readonly Chore[],
    private readonly logger: Logger,
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

  #plan(chore: Chore): void {
    if (this.#stopped) return;
    const period = chore.every * 1_000;
    const wait = chore.alignedTo ? period - (chore.alignedTo() % period) + alignmentSlackMs : period;
    this.#timers.set(
      chore,
      setTimeout(() => this.#begin(chore), wait),
    );
  }

  #begin(chore: Chore): void {
    const round = this.#round(chore).finally(() => {
      this.#running.delete(round);
      this.#plan(chore);
    });
    this.#running.add(round);
  }

  async #round(chore: Chore): Promise<void> {
    try {
      await chore.run();
      this.#failing.delete(chore);
    } catch (error) {
      const say = this.#failing.has(chore) ? this.logger.debug : this.logger.warn;
      this.#failing.add(chore);
      say.call(this.logger, { ...describe(error), chore: chore.name }, "Upkeep task failed unexpectedly");
    }
  }
}
