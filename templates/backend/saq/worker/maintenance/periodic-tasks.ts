/**
 * Runs the periodic tasks of a worker, each at its own interval. A failed round is logged, and the next rounds follow.
 */
import type { ProblemLog } from "../../problem-log.js";

export interface PeriodicTask {
  name: string;
  /** Interval, s. */
  every: number;
  /** Rounds begin just after whole multiples of `every` on this clock (epoch ms), when jobs become due. */
  alignedTo?: () => number;
  /** The first round begins at the start. */
  runsAtStart?: boolean;
  /**
   * No round is due before this time on the clock of `alignedTo`; Infinity: none before `resume`. Called after each
   * round. A step of the clock may change this time to anything, so a finite time skips rounds for at most
   * `maxPauseMs`.
   */
  notBefore?: () => number;
  run: () => Promise<unknown>;
}

/** Added to each aligned wait, because a timer may fire shortly before the database's second begins. */
const alignmentSlackMs = 5;
/** Rounds are skipped for at most this time, whatever the clocks say. */
const maxPauseMs = 10_000;

export class PeriodicTasks {
  readonly #timers = new Map<PeriodicTask, NodeJS.Timeout>();
  readonly #runningRounds = new Set<Promise<unknown>>();
  /**
   * Tasks that skip rounds. They have no timer for each round, because one that finds nothing to do costs 0.2 ms of
   * CPU.
   */
  readonly #paused = new Set<PeriodicTask>();
  #isStopped = false;

  constructor(
    private readonly tasks: readonly PeriodicTask[],
    private readonly problems: ProblemLog,
  ) {}

  start(): void {
    for (const task of this.tasks) task.runsAtStart ? this.#begin(task) : this.#plan(task);
  }

  /** Stops the timers and waits for the rounds that are running. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    await Promise.allSettled(this.#runningRounds);
  }

  /** Plans the next round of tasks that skip rounds, because they may have something to do again. */
  resume(): void {
    for (const task of this.#paused) {
      clearTimeout(this.#timers.get(task));
      this.#plan(task);
    }
  }

  #plan(task: PeriodicTask): void {
    if (this.#isStopped) return;
    const periodMs = task.every * 1_000;
    const now = task.alignedTo?.() ?? 0;
    const untilNextMs = periodMs - (now % periodMs) + (task.alignedTo ? alignmentSlackMs : 0);
    const skipped = Math.max(0, Math.ceil(((task.notBefore?.() ?? 0) - now - untilNextMs) / periodMs));
    if (skipped > 0) this.#paused.add(task);
    else this.#paused.delete(task);
    if (skipped === Number.POSITIVE_INFINITY) return;
    const waitMs = untilNextMs + Math.min(skipped, Math.floor(maxPauseMs / periodMs)) * periodMs;
    this.#timers.set(
      task,
      setTimeout(() => this.#begin(task), waitMs),
    );
  }

  #begin(task: PeriodicTask): void {
    this.#paused.delete(task);
    const round = this.#round(task).finally(() => {
      this.#runningRounds.delete(round);
      this.#plan(task);
    });
    this.#runningRounds.add(round);
  }

  async #round(task: PeriodicTask): Promise<void> {
    try {
      await task.run();
      this.problems.succeeded(task.name);
    } catch (error) {
      this.problems.failed({
        source: task.name,
        error,
        message: "Upkeep task failed unexpectedly",
      });
    }
  }
}
