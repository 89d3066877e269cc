/**
 * A burst runs the jobs that are waiting, and then the worker stops. It is over when a free slot has waited
 * `dequeueTimeout` without getting a job, or after `maxBurstJobs` jobs. A claim that fails or a job that is aborted
 * does not end it.
 */
export interface BurstOptions {
  /** s */
  dequeueTimeout: number;
  maxBurstJobs: number | null;
  /** Called once, when the burst is over. Jobs that are already claimed still run. */
  onEnd: () => void;
}

export class Burst {
  readonly #options: BurstOptions;
  /** Jobs that may still be claimed. */
  #remaining: number;
  #timer: NodeJS.Timeout | null = null;
  #isOver = false;

  constructor(options: BurstOptions) {
    this.#options = options;
    this.#remaining = options.maxBurstJobs ?? Number.POSITIVE_INFINITY;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  get remaining(): number {
    return this.#isOver ? 0 : this.#remaining;
  }

  /** Records that jobs were claimed. */
  claimed(jobs: number): void {
    this.stop();
    this.#remaining -= jobs;
    if (this.#remaining <= 0) this.end();
  }

  /** Records that a slot is free and there is no job. A wake-up that finds no job does not extend the deadline. */
  idle(): void {
    if (!this.#isOver) this.#timer ??= setTimeout(() => this.end(), this.#options.dequeueTimeout * 1_000);
  }

  stop(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** Ends the burst. Jobs that are already claimed still run. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.stop();
    this.#options.onEnd();
  }
}
