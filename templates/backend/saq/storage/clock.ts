/**
 * The database's clock, as this process knows it: the monotonic clock of this machine plus a measured offset.
 *
 * The wall clock of this machine is not used, because it may be set at any time: after a step of an hour, due times,
 * heartbeats and timers would be wrong by an hour until the next measurement. The monotonic clock may stop while the
 * machine sleeps. Therefore the offset is measured again as soon as the two clocks of this machine disagree.
 *
 * The database's own clock may be set too. It still decides what is due, but time that did not pass must not count as
 * the running time of a job. Therefore steps forward are remembered; see `setForwardSince`.
 */

import { backoffMs } from "../core/backoff.js";
import type { Logger } from "../logger.js";

const measureEveryMs = 60_000;
/** A measurement that takes no longer than this is exact enough: due times are whole seconds. */
const quickMs = 2;
/** Two clocks disagree if they differ by more than this. Less is drift, or the time that an answer takes. */
const toleranceMs = 1_000;
/** The end of a disagreement is logged below this, so that a clock near the limit does not fill the log. */
const agreementMs = 500;
/** A smaller step back is not remembered: the clock has caught up before the step does harm. */
const minBackStepMs = 60_000;
/** Maximum number of remembered steps; older ones are forgotten. */
const maxSteps = 20;

interface ForwardStep {
  /** The time that the database's clock showed after the step, epoch ms. */
  readonly after: number;
  readonly ms: number;
}

/** A step back of the database's clock, by `ms` (more than a minute). `noticedAt` is a performance.now(). */
export interface BackStep {
  readonly ms: number;
  readonly noticedAt: number;
}

export interface ClockSource {
  /** Reads the database's clock, epoch ms. */
  read(): Promise<number>;
  /** Resolves after `ms`, or when the connections are closed. */
  pause(ms: number): Promise<void>;
  isClosed(): boolean;
  readonly logger: Logger;
}

export class DatabaseClock {
  /** Database's clock minus performance.now(). */
  #offsetMs = Date.now() - performance.now();
  /** Wall clock minus performance.now(), at the last measurement. */
  #wallOffsetMs = this.#offsetMs;
  #steps: ForwardStep[] = [];
  #setBack: BackStep | null = null;
  #isMeasured = false;
  #differs = false;
  #measuring: Promise<void> | null = null;
  #refreshing: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;

  constructor(private readonly source: ClockSource) {}

  /** Returns the time of the database's clock, epoch ms. */
  now(): number {
    const monotonicMs = performance.now();
    // The wall clock was set, or this machine slept. Only a new measurement can tell which.
    if (Math.abs(Date.now() - monotonicMs - this.#wallOffsetMs) > toleranceMs && this.#isMeasured)
      void this.#refresh();
    return monotonicMs + this.#offsetMs;
  }

  /** Measures the offset now, and then every minute until `stop` is called. */
  async start(): Promise<void> {
    await this.measure();
    this.#timer ??= setInterval(() => void this.#refresh(), measureEveryMs).unref();
  }

  stop(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
  }

  /**
   * Returns how far the database's clock was set forward after it showed `epochMs`, ms. A time that lies between the
   * old and the new setting of the clock was written by a process that had not noticed the step yet; it counts as
   * before it.
   */
  setForwardSince(epochMs: number): number {
    let sum = 0;
    for (const { after, ms } of this.#steps) if (epochMs < after) sum += ms;
    return sum;
  }

  /** The last step back of the database's clock; null if this process has seen none. */
  get setBack(): BackStep | null {
    return this.#setBack;
  }

  /**
   * Measures the offset again if a time that the database has just returned disagrees with it.
   *
   * @param databaseMs the returned time, epoch ms
   * @param sentAt when the statement was sent, by performance.now()
   */
  compareWith(databaseMs: number, sentAt: number): void {
    if (this.isAhead(databaseMs) || sentAt + this.#offsetMs - databaseMs > toleranceMs) void this.#refresh();
  }

  /** Returns true if a time that the database just returned is later than expected: its clock was set forward. */
  isAhead(databaseMs: number): boolean {
    return databaseMs - performance.now() - this.#offsetMs > toleranceMs;
  }

  /** Measures the offset with the first quick answer, or with the quickest of three. */
  measure(): Promise<void> {
    this.#measuring ??= this.#measure().finally(() => {
      this.#measuring = null;
    });
    return this.#measuring;
  }

  async #measure(): Promise<void> {
    let roundTripMs = Number.POSITIVE_INFINITY;
    let databaseMs = 0;
    let offset = 0;
    let wallOffset = 0;
    for (let round = 0; round < 3 && roundTripMs > quickMs; round++) {
      // Read before the answer: if the wall clock is set meanwhile, the next call of `now` notices it.
      const wall = Date.now();
      const sent = performance.now();
      const ms = await this.source.read();
      const elapsed = performance.now() - sent;
      if (elapsed >= roundTripMs) continue;
      roundTripMs = elapsed;
      databaseMs = ms;
      offset = ms - (sent + roundTripMs / 2);
      wallOffset = wall - sent;
    }
    if (this.#isMeasured) this.#recordStep(offset - this.#offsetMs, toleranceMs + roundTripMs, databaseMs);
    this.#isMeasured = true;
    this.#offsetMs = offset;
    this.#wallOffsetMs = wallOffset;
    this.#logDifference(offset - this.#wallOffsetMs);
  }

  #recordStep(step: number, tolerance: number, databaseMs: number): void {
    if (step > tolerance) this.#steps = [...this.#steps, { after: databaseMs, ms: step }].slice(-maxSteps);
    // If the clock was set back to before a previous step, that step has been undone.
    else if (step < -tolerance) {
      this.#steps = this.#steps.filter(({ after }) => after <= databaseMs);
      if (-step > minBackStepMs) this.#setBack = { ms: -step, noticedAt: performance.now() };
    }
  }

  #logDifference(offsetMs: number): void {
    const { logger } = this.source;
    if (!this.#differs && Math.abs(offsetMs) > toleranceMs) {
      this.#differs = true;
      logger.warn(
        { offsetMs: Math.round(offsetMs) },
        "the clocks of this machine and of the database differ by more than a second; the database's clock is used",
      );
    } else if (this.#differs && Math.abs(offsetMs) < agreementMs) {
      this.#differs = false;
      logger.info(
        { offsetMs: Math.round(offsetMs) },
        "the clocks of this machine and of the database agree again",
      );
    }
  }

  /** Retries the measurement until it succeeds: after this machine has slept, the connections are often lost. */
  #refresh(): Promise<void> {
    this.#refreshing ??= this.#measureWithRetry().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #measureWithRetry(): Promise<void> {
    for (let failures = 0; !this.source.isClosed(); failures++) {
      try {
        return await this.measure();
      } catch {
        await this.source.pause(backoffMs(failures));
      }
    }
  }
}
