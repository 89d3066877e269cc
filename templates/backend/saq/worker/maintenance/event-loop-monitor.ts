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
/** Interval of the checks. */
const checkMs = 1_000;

/** The worker whose jobs may block the event loop. */
export interface MonitoredWorker {
  /** Returns the keys of the jobs that may have blocked the event loop since the last call. */
  takeRecentKeys(): readonly string[];
  /** True if no job runs or waits to run here. */
  readonly isResting: boolean;
}

export class EventLoopMonitor {
  #timer: NodeJS.Timeout | null = null;
  /** Times are performance.now(). */
  #lastTickAt = 0;
  #lastCheckAt = 0;
  /** The longest delay since the last check. */
  #longestMs = 0;
  #isStopped = false;

  constructor(
    private readonly thresholdMs: number,
    private readonly worker: MonitoredWorker,
    private readonly logger: Logger,
  ) {}

  /** Starts watching, because jobs may run from now on. Pauses by itself when no job is left. */
  begin(): void {
    if (this.#timer || this.#isStopped) return;
    this.#lastTickAt = performance.now();
    this.#lastCheckAt = this.#lastTickAt;
    this.#timer = setInterval(() => this.#tick(), tickMs);
  }

  /** Stops permanently, because a notification may still call `begin` while the worker stops. */
  stop(): void {
    this.#isStopped = true;
    this.#pause();
  }

  #pause(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
  }

  #tick(): void {
    const now = performance.now();
    this.#longestMs = Math.max(this.#longestMs, now - this.#lastTickAt - tickMs);
    this.#lastTickAt = now;
    if (now - this.#lastCheckAt >= checkMs) this.#check();
  }

  #check(): void {
    const jobs = this.worker.takeRecentKeys();
    const ms = Math.round(this.#longestMs);
    this.#lastCheckAt = this.#lastTickAt;
    this.#longestMs = 0;
    if (jobs.length === 0 && this.worker.isResting) this.#pause();
    if (ms < this.thresholdMs) return;
    this.logger.warn(
      { jobs: jobs.slice(0, 20), ms },
      `The event loop was blocked for ${ms} ms, so no other job could continue. Run long computations in a thread`,
    );
  }
}
