/**
 * The claimed jobs of one worker that may have caused the death of their workers. Each waits until no other job runs in
 * this process, and then runs alone.
 */

import { doubled } from "../core/backoff.js";
import type { ClaimedJob } from "../core/claim.js";
import { type AloneGate, type AloneJob, aloneGate } from "./alone-gate.js";

/**
 * Delay with which a job goes back into the queue when the other jobs of this process do not end in time, s. It doubles
 * each time this happens to the same job, up to `max`: no other job starts here while one waits, and a running job may
 * take hours.
 */
const giveBackSeconds = { first: 60, max: 960 };
/** Number of jobs whose delay is remembered. The oldest is forgotten first. */
const maxRemembered = 1_000;
/** Interval at which the claim of a waiting job is renewed, ms. Shorter than what sweepers add to any timeout. */
const renewEveryMs = 5_000;

export interface AloneJobsOptions {
  /** @defaultValue the gate of this process */
  gate?: AloneGate;
  /**
   * Renews the claim. Returns undefined if this worker no longer owns the job, or if storage does not respond in time.
   */
  renew: (claimed: ClaimedJob) => Promise<ClaimedJob | undefined>;
  /** Returns true if jobs may be started. */
  mayStart: () => boolean;
  /** Starts the job. Returns false if it was not started. */
  start: (claimed: ClaimedJob) => boolean;
  /** Returns the job to the queue. It must not run before `seconds` have passed. */
  giveBack: (claimed: ClaimedJob, seconds: number) => void;
}

export class AloneJobs {
  readonly #options: AloneJobsOptions;
  readonly #gate: AloneGate;
  readonly #waiting = new Map<AloneJob, ClaimedJob>();
  /** Jobs that are being started. */
  readonly #starting = new Set<Promise<void>>();
  /** True while waiting jobs are withdrawn: they go back for another reason than a slot that does not become empty. */
  #isWithdrawing = false;
  /** How many times a job was given up in a row, by its key. */
  readonly #timesGivenUp = new Map<string, number>();

  constructor(options: AloneJobsOptions) {
    this.#options = options;
    this.#gate = options.gate ?? aloneGate;
  }

  /** Number of waiting jobs. */
  get size(): number {
    return this.#waiting.size;
  }

  /** The waiting jobs. */
  get claims(): Iterable<ClaimedJob> {
    return this.#waiting.values();
  }

  wait(claimed: ClaimedJob): void {
    const { renew, giveBack } = this.#options;
    // Sweepers count the timeout of a job from its claim, and the timeout may be shorter than the wait.
    const renewTimer = setInterval(() => void renew(claimed), renewEveryMs);
    const job: AloneJob = {
      start: () => {
        clearInterval(renewTimer);
        const started = this.#start(claimed, job).finally(() => this.#starting.delete(started));
        this.#starting.add(started);
      },
      giveUp: () => {
        clearInterval(renewTimer);
        this.#waiting.delete(job);
        giveBack(claimed, this.#isWithdrawing ? 0 : this.#nextDelaySeconds(claimed.key));
      },
    };
    this.#waiting.set(job, claimed);
    this.#gate.wait(job);
  }

  #nextDelaySeconds(key: string): number {
    const times = this.#timesGivenUp.get(key) ?? 0;
    this.#timesGivenUp.delete(key);
    this.#timesGivenUp.set(key, times + 1);
    const [oldest] = this.#timesGivenUp.keys();
    if (this.#timesGivenUp.size > maxRemembered && oldest !== undefined) this.#timesGivenUp.delete(oldest);
    return doubled(times, giveBackSeconds.first, giveBackSeconds.max);
  }

  /**
   * Gives up waiting jobs, because the worker stops or because they are paused. Resolves when no job is being started
   * any more.
   */
  async withdraw(isWanted: (claimed: ClaimedJob) => boolean = () => true): Promise<void> {
    const wanted = [...this.#waiting].flatMap(([job, claimed]) => (isWanted(claimed) ? [job] : []));
    this.#isWithdrawing = true;
    this.#gate.withdraw(new Set(wanted));
    this.#isWithdrawing = false;
    await Promise.all(this.#starting);
  }

  /**
   * Renews the claim, so that the timeout counts from now, and starts the job. The job is not started if it was aborted
   * or belongs to another worker now.
   */
  async #start(claimed: ClaimedJob, job: AloneJob): Promise<void> {
    const { renew, mayStart, start, giveBack } = this.#options;
    this.#timesGivenUp.delete(claimed.key);
    const renewed = await renew(claimed);
    this.#waiting.delete(job);
    if (!renewed || !mayStart()) giveBack(claimed, giveBackSeconds.first);
    else if (start(renewed)) return;
    this.#gate.notStarted();
  }
}
