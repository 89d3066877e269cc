/**
 * Warns when the event loop was blocked: a task that computes without waiting delays every other job, the timeouts of
 * jobs and the worker's own heartbeat. Such work belongs in a thread.
 *
 * Watches only while jobs run, because its timer would wake an idle worker more often than any other (with a timer of
 * 20 ms that always runs, 3 ms of CPU per second; without it 0.1 ms; all other timers off). It has its own timer,
 * because `monitorEventLoopDelay` does not count the first delay after its start, and a job that blocks does so at
 * once.
 */
import type { Logger } from "../../logger.js";

/** Interval of the timer. A block is reported up to this much shorter than it was. */
const tickMs = 50;
const lookMs = 1_000;

export interface Watched {
  /** Returns the keys of the jobs that may have blocked the event loop since the last call. */
  suspects(): readonly string[];
  /** True if no job runs or waits to run here. */
  readonly isResting: boolean;
}

export class EventLoopMonitor {
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

  /** Starts watching, because jobs may run from now on. Pauses by itself when no job is left. */
  begin(): void {
    if (this.#clock || this.#stopped) return;
    this.#ticked = performance.now();
    this.#looked = this.#ticked;
    this.#clock = setInterval(() => this.#tick(), tickMs);
  }

  /** Stops for good: a notification may still call `begin` while the worker stops. */
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
