/** What becomes of the jobs of one call, gathered for one promise instead of three for each job. */
import type { Decided } from "../broker.js";
import type { EnqueueOutcome } from "../new-job.js";

/** Resolves when all are decided; rejects then with the failure of the first that failed. */
export class Outcomes {
  readonly #outcomes: EnqueueOutcome[];
  #left: number;
  #failure: { index: number; error: unknown } | null = null;

  constructor(
    count: number,
    private readonly all: Decided<EnqueueOutcome[]>,
  ) {
    this.#outcomes = new Array<EnqueueOutcome>(count).fill({ stored: true });
    this.#left = count;
  }

  decided(index: number, outcome: EnqueueOutcome): void {
    this.#outcomes[index] = outcome;
    this.#countDown();
  }

  failed(index: number, error: unknown): void {
    if (!this.#failure || index < this.#failure.index) this.#failure = { index, error };
    this.#countDown();
  }

  #countDown(): void {
    if (--this.#left > 0) return;
    if (this.#failure) this.all.reject(this.#failure.error);
    else this.all.resolve(this.#outcomes);
  }
}

/** Where the outcome of one of them goes. */
export class Place implements Decided<EnqueueOutcome> {
  constructor(
    private readonly outcomes: Outcomes,
    private readonly index: number,
  ) {}

  resolve(outcome: EnqueueOutcome): void {
    this.outcomes.decided(this.index, outcome);
  }

  reject(error: unknown): void {
    this.outcomes.failed(this.index, error);
  }
}
