/** Collects the outcomes of all jobs of one call for a single promise, instead of three promises for each job. */
import type { Decided } from "../broker.js";
import type { EnqueueOutcome } from "../core/new-job.js";

/** When all jobs are decided, resolves with their outcomes, or rejects with the error of the first job that failed. */
export class BulkOutcomes {
  readonly #outcomes: EnqueueOutcome[];
  #undecided: number;
  #failure: { index: number; error: unknown } | null = null;

  constructor(
    count: number,
    private readonly callbacks: Decided<EnqueueOutcome[]>,
  ) {
    this.#outcomes = new Array<EnqueueOutcome>(count).fill({ stored: true });
    this.#undecided = count;
  }

  onOutcome(index: number, outcome: EnqueueOutcome): void {
    this.#outcomes[index] = outcome;
    this.#countDown();
  }

  onError(index: number, error: unknown): void {
    if (!this.#failure || index < this.#failure.index) this.#failure = { index, error };
    this.#countDown();
  }

  #countDown(): void {
    if (--this.#undecided > 0) return;
    if (this.#failure) this.callbacks.reject(this.#failure.error);
    else this.callbacks.resolve(this.#outcomes);
  }
}

/** Receives the outcome of the job at one index. */
export class BulkSlot implements Decided<EnqueueOutcome> {
  constructor(
    private readonly outcomes: BulkOutcomes,
    private readonly index: number,
  ) {}

  resolve(outcome: EnqueueOutcome): void {
    this.outcomes.onOutcome(this.index, outcome);
  }

  reject(error: unknown): void {
    this.outcomes.onError(this.index, error);
  }
}
