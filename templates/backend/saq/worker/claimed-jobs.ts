/**
 * Handles claimed jobs without running them: decodes their documents, renews their claims, compares them with storage,
 * and gives them back.
 */
import type { Claim, ClaimedJob } from "../core/claim.js";
import type { JobFields } from "../core/job.js";
import { claimedFields } from "../core/stored-job.js";
import type { Logger } from "../logger.js";
import type { Queue } from "../queue/queue.js";
import { Attempt, type AttemptHost } from "./attempt/attempt.js";
import { release } from "./settlement/settlement.js";
import type { Settler } from "./settlement/settler.js";
import { maxResponseSeconds } from "./time-limits.js";

export interface ClaimedJobsOptions {
  queue: Queue;
  workerId: string;
  logger: Logger;
  settler: Settler;
  host: AttemptHost;
}

export class ClaimedJobs {
  readonly #options: ClaimedJobsOptions;

  constructor(options: ClaimedJobsOptions) {
    this.#options = options;
  }

  /**
   * Decodes the document of a job. If the document is not a SAQ job, marks the job as failed and returns null. Calls
   * `onInvalidNumber` if the document contains NaN or Infinity, which are not valid JSON.
   */
  decode(claimed: ClaimedJob, onInvalidNumber?: () => void): JobFields | null {
    const { queue, workerId, logger, settler } = this.#options;
    try {
      return claimedFields(claimed, { queueName: queue.name, workerId, onInvalidNumber });
    } catch (error) {
      logger.debug({ err: error, job: claimed.key }, "the stored document is not a SAQ job");
      settler.setAside(claimed);
      return null;
    }
  }

  /**
   * Renews the claim of a job that runs alone. Returns undefined if this worker no longer owns the job, if the request
   * fails, or if the response takes longer than `maxResponseSeconds`.
   */
  async renew(claimed: ClaimedJob): Promise<ClaimedJob | undefined> {
    const { queue, logger } = this.#options;
    const sentAt = performance.now();
    try {
      const [renewed] = await queue.broker.renew([claimed]);
      return performance.now() - sentAt <= maxResponseSeconds(queue.config) * 1_000 ? renewed : undefined;
    } catch (error) {
      logger.debug({ err: error, job: claimed.key }, "could not renew the claim of a job that runs alone");
      return undefined;
    }
  }

  /**
   * Compares the claims of this worker in storage with `held`, the claims that it holds in memory. Jobs that it does
   * not hold go back into the queue. Returns their keys.
   */
  async reconcile(held: () => Iterable<Claim>): Promise<string[]> {
    const { queue, workerId, settler } = this.#options;
    const { lostLimit, failedTtl } = queue.config;
    const keys = await queue.broker.reconcile({
      workerId,
      held,
      unrecorded: () => settler.unrecordedClaims(),
      forgetUnrecorded: (claim) => settler.forgetUnrecorded(claim),
      lostLimit,
      failedTtl,
    });
    settler.requeued(keys);
    return keys;
  }

  /**
   * Returns jobs to the queue at their previous position. Their attempt is not counted. With `seconds`, they become due
   * only after that time, s.
   */
  giveBack(jobs: readonly ClaimedJob[], seconds = 0): void {
    const { settler, host } = this.#options;
    // The last one first: see `Broker.settle`.
    for (const claimed of jobs.toReversed()) {
      const fields = this.decode(claimed);
      if (!fields) continue;
      const attempt = new Attempt(host, claimed, fields);
      const settlement = release(attempt);
      if (seconds > 0) settlement.scheduled = Math.ceil(host.now() / 1_000) + seconds;
      settler.settle(attempt, settlement);
    }
  }
}
