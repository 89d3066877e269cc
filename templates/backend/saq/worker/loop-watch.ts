/**
 * Tells when the event loop stood still (W-13): a task that computes instead of waiting holds up every other job, their
 * timeouts and the worker's own sign of life. Such work belongs on a thread.
 */
import { type IntervalHistogram, monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../logger.js";

const resolutionMs = 20;

export class LoopWatch {
  #delays: IntervalHistogram | null = null;

  constructor(
    private readonly thresholdMs: number,
    /** Keys of the jobs that ran since the last look. */
    private readonly suspects: () => readonly string[],
    private readonly logger: Logger,
  ) {}

  start(): void {
    this.#delays = monitorEventLoopDelay({ resolution: resolutionMs });
    this.#delays.enable();
  }

  stop(): void {
    this.#delays?.disable();
  }

  async look(): Promise<void> {
    // A delay that has just ended is counted at the next beat only: told later, it would be told without its jobs.
    await sleep(resolutionMs);
    const jobs = this.suspects();
    if (!this.#delays) return;
    const ms = Math.round(this.#delays.max / 1e6) - resolutionMs;
    this.#delays.reset();
    if (ms < this.thresholdMs) return;
    this.logger.warn(
      { jobs: jobs.slice(0, 20), ms },
      `The event loop was blocked for ${ms} ms, so that no other job could go on; run what computes that long on a thread`,
    );
  }
}
