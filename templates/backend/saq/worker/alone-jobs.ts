/**
 * The claimed jobs of one worker that may be what ends their workers: each waits until nothing else runs in this
 * process, and runs by itself.
 */
import { doubled } from "../backoff.js";
import type { ClaimedJob } from "../broker.js";
import { type AloneGate, type AloneJob, aloneGate } from "./alone-gate.js";

/**
 * A job goes back for so long when the others of this process do not end, s. Doubled each time in a row, up to the
 * longest: nothing else starts here while it waits, and a neighbour may run for hours.
 */
const again = { first: 60, longest: 960 };
/** How often the claim of one that waits is renewed, ms: less than others wait on top of the shortest timeout. */
const renewEveryMs = 5_000;

export interface AloneJobsOptions {
  /** @defaultValue the gate of this process */
  gate?: AloneGate;
  /** Undefined when the job is not ours any more, or nobody can tell in time. */
  renew: (claimed: ClaimedJob) => Promise<ClaimedJob | undefined>;
  /** Jobs may be started. */
  mayStart: () => boolean;
  /** False when it was not started. */
  start: (claimed: ClaimedJob) => boolean;
  /** Not to run before that many seconds have passed. */
  giveBack: (claimed: ClaimedJob, seconds: number) => void;
}

export class AloneJobs {
  readonly #options: AloneJobsOptions;
  readonly #gate: AloneGate;
  readonly #waiting = new Map<AloneJob, ClaimedJob>();
  /** How often in a row one has given up. */
  #givenUp = 0;

  constructor(options: AloneJobsOptions) {
    this.#options = options;
    this.#gate = options.gate ?? aloneGate;
  }

  /** How many wait. */
  get size(): number {
    return this.#waiting.size;
  }

  /** Those that wait. */
  get claims(): Iterable<ClaimedJob> {
    return this.#waiting.values();
  }

  wait(claimed: ClaimedJob): void {
    const { renew, giveBack } = this.#options;
    // Sweepers go by the time of the claim: its timeout may be shorter than the wait.
    const renewing = setInterval(() => void renew(claimed), renewEveryMs);
    const job: AloneJob = {
      start: () => {
        clearInterval(renewing);
        void this.#start(claimed, job);
      },
      giveUp: () => {
        clearInterval(renewing);
        this.#waiting.delete(job);
        giveBack(claimed, doubled(this.#givenUp++, again.first, again.longest));
      },
    };
    this.#waiting.set(job, claimed);
    this.#gate.wait(job);
  }

  /** None of them starts any more: the worker stops. */
  withdraw(): void {
    this.#gate.withdraw(new Set(this.#waiting.keys()));
  }

  /** Its timeout counts from now. Not started when it is to be aborted, or is somebody else's by now. */
  async #start(claimed: ClaimedJob, job: AloneJob): Promise<void> {
    const { renew, mayStart, start, giveBack } = this.#options;
    this.#givenUp = 0;
    const renewed = await renew(claimed);
    this.#waiting.delete(job);
    if (!renewed || !mayStart()) giveBack(claimed, again.first);
    else if (start(renewed)) return;
    this.#gate.passed();
  }
}
