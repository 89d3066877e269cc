/**
 * Connects the attempts of a worker to storage: their heartbeats, progress and changes of `meta`, and `ctx.finish`.
 */
import type { Interrupted } from "../../broker.js";
import type { ClaimedJob } from "../../core/claim.js";
import type { JobFields } from "../../core/job.js";
import type { TransactionClient } from "../../core/transaction-client.js";
import type { ProblemLog } from "../../problem-log.js";
import type { Queue } from "../../queue/queue.js";
import type { SettlementRules } from "../settlement/settlement.js";
import { finishInTransaction, type TransactionalFinish } from "../settlement/transactional-finish.js";
import type { Attempt, AttemptHost } from "./attempt.js";
import { ProgressSender } from "./progress-sender.js";

export class WorkerAttemptHost implements AttemptHost {
  readonly hardDeadlineMs: number;
  readonly maxBytes: number;
  readonly #queue: Queue;
  readonly #progress: ProgressSender;

  /** `ended` is called when an attempt has ended. */
  constructor(
    queue: Queue,
    problems: ProblemLog,
    readonly ended: AttemptHost["ended"],
  ) {
    const { config, broker } = queue;
    this.hardDeadlineMs = config.cancellationHardDeadline * 1_000;
    this.maxBytes = config.maxBytes;
    this.#queue = queue;
    const source = "progress";
    this.#progress = new ProgressSender({
      heartbeat: (changes) => broker.heartbeat(changes),
      failed: (error) =>
        problems.failed({ source, error, message: "could not store the progress of jobs yet" }),
      succeeded: () => problems.succeeded(source),
    });
  }

  now(): number {
    return this.#queue.broker.now();
  }

  rules(): SettlementRules {
    const { failedTtl, maxBytes } = this.#queue.config;
    return { nowMs: this.now(), failedTtl, maxBytes };
  }

  async heartbeat(attempt: Attempt, patch: string, removed: readonly string[]): Promise<boolean> {
    const change = { ...attempt.claim, patch, removed };
    const [isOwned] = await this.#queue.broker.heartbeat([change], () => attempt.isOver);
    return isOwned === true;
  }

  sendProgress(attempt: Attempt, change: Pick<Partial<JobFields>, "progress">): Promise<void> {
    return this.#progress.send(attempt, change);
  }

  /** Drops the progress that is not sent yet. */
  stopProgress(): void {
    this.#progress.stop();
  }

  async findInterruption(claim: ClaimedJob): Promise<Interrupted["reason"] | null> {
    const [interrupted] = await this.#queue.broker.findInterrupted([claim]);
    return interrupted?.reason ?? null;
  }

  finish(
    attempt: Attempt,
    returned: unknown,
    client: TransactionClient,
  ): Promise<TransactionalFinish | null> {
    return finishInTransaction(this.#queue, attempt, returned, client, this.rules());
  }
}
