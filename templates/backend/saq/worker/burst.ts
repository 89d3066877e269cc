/**
 * A burst works off what is there (W-18): it is over when a free slot has waited `dequeueTimeout` for a job in vain, or
 * after so many jobs. That a claim fails, or a job is aborted, ends none (D-50).
 */
export interface BurstOptions {
  /** s */
  dequeueTimeout: number;
  maxBurstJobs: number | null;
  /** Called once. What was claimed by then still runs. */
  over: () => void;
}

export class Burst {
  readonly #options: BurstOptions;
  /** Jobs that may still be claimed. */
  #left: number;
  #timer: NodeJS.Timeout | null = null;
  #isOver = false;

  constructor(options: BurstOptions) {
    this.#options = options;
    this.#left = options.maxBurstJobs ?? Number.POSITIVE_INFINITY;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  get left(): number {
    return this.#isOver ? 0 : this.#left;
  }

  /** Jobs were found. */
  claimed(jobs: number): void {
    this.stop();
    this.#left -= jobs;
    if (this.#left <= 0) this.#end();
  }

  /** A slot is free and there is no job. One deadline, whatever wakes the worker meanwhile for nothing (D-8). */
  idle(): void {
    if (!this.#isOver) this.#timer ??= setTimeout(() => this.#end(), this.#options.dequeueTimeout * 1_000);
  }

  stop(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.stop();
    this.#options.over();
  }
}
