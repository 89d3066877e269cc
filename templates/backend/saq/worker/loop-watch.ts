/**
 * Tells when the event loop stood still (W-13): a task that computes instead of waiting holds up every other job, their
 * timeouts and the worker's own sign of life. Such work belongs on a thread.
 *
 * Watches while jobs run: its timer is what an idle worker would wake for most (a clock of 20 ms that always
 * ticks: 3 ms of CPU per second, and 0.1 without it, all other timers off). A timer of ours, because `monitorEventLoopDelay` does not
 * count the first delay after its start, and a job that blocks does so at once.
 */
import type { Logger } from "../logger.js";

/** A block is told up to that much shorter than it was. */
const tickMs = 50;
const lookMs = 1_000;

export interface Watched {
  /** Keys of the jobs that ran since the last call. */
  suspects(): readonly string[];
  /** No job runs, nor is one on its way. */
  readonly isResting: boolean;
}

export class LoopWatch {
  #clock: NodeJS.Timeout | null = null;
  /** Times are performance.now(). */
  #ticked = 0;
  #looked = 0;
  #longest = 0;
  #stopped = false;

  constructor(
    private readonly thresholdMs: number,
    private readonly watched: Watched,
    private readonly logger: Logger,
  ) {}

  /** Jobs may run from now on. Ends by itself when there are no more. */
  begin(): void {
    if (this.#clock || this.#stopped) return;
    this.#ticked = performance.now();
    this.#looked = this.#ticked;
    this.#clock = setInterval(() => this.#tick(), tickMs);
  }

  /** For good: a notification may still come while the worker stops. */
  stop(): void {
    this.#stopped = true;
    this.#pause();
  }

  #pause(): void {
    if (this.#clock) clearInterval(this.#clock);
    this.#clock = null;
  }

  #tick(): void {
    const now = performance.now();
    this.#longest = Math.max(this.#longest, now - this.#ticked - tickMs);
    this.#ticked = now;
    if (now - this.#looked >= lookMs) this.#look();
  }

  #look(): void {
    const jobs = this.watched.suspects();
    const ms = Math.round(this.#longest);
    this.#looked = this.#ticked;
    this.#longest = 0;
    if (jobs.length === 0 && this.watched.isResting) this.#pause();
    if (ms < this.thresholdMs) return;
    this.logger.warn(
      { jobs: jobs.slice(0, 20), ms },
      `The event loop was blocked for ${ms} ms, so that no other job could go on; run what computes that long on a thread`,
    );
  }
}
