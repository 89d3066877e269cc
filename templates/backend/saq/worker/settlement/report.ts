/** Counts and logs the attempts of a worker: their starts, their recorded ends and their losses. */

import type { Settlement, SettleResult, WorkerStats } from "../../broker.js";
import { describe, type Logger } from "../../logger.js";
import type { QueueCounters } from "../../queue/types.js";
import { type Attempt, lossText } from "../attempt.js";
import type { AttemptResult } from "./settlement.js";

/** Log fields of an attempt that is over. `ms` is 0 if the attempt was refused and never started. */
function about({ fields, startedAt }: Attempt) {
  const ms = startedAt > 0 ? Math.round(performance.now() - startedAt) : 0;
  return { job: fields.key, task: fields.function, ms };
}

const momentMs = 100;
const maxKeysPerLine = 20;

export class Report {
  readonly stats: Omit<WorkerStats, "uptime"> = { complete: 0, failed: 0, retried: 0, aborted: 0 };

  #unsettled: { key: string; status: string; error: unknown }[] = [];

  /** `counters` are those of the queue object. Its other workers and its callers count there too. */
  constructor(
    private readonly logger: Logger,
    private readonly counters: Omit<QueueCounters, "started">,
  ) {}

  started({ fields }: Attempt): void {
    if (!this.#says("info")) return;
    const { key, function: name, attempts } = fields;
    this.logger.info({ job: key, task: name, attempt: attempts }, `Processing ${name}`);
  }

  settled(attempt: Attempt, end: AttemptResult, written: Settlement["status"], result: SettleResult): void {
    const { function: name } = attempt.fields;
    const error = end.kind === "threw" ? end.error : end.kind === "interrupted" ? end.reason : undefined;
    const status = result === "applied" ? written : result;
    switch (status) {
      case "finished":
      case "complete":
        if (error !== undefined) {
          this.logger.warn(
            { ...about(attempt), err: error },
            `${name} failed after it had finished its job, which stays complete`,
          );
        }
        this.stats.complete++;
        this.counters.complete++;
        if (this.#says("info")) this.logger.info(about(attempt), `Finished ${name}`);
        return;
      case "failed":
        this.stats.failed++;
        this.counters.failed++;
        this.logger.error({ ...about(attempt), err: error }, `Failed ${name}`);
        return;
      case "aborted":
        this.stats.aborted++;
        this.counters.aborted++;
        this.logger.info(about(attempt), `Aborted ${name}`);
        return;
      case "queued":
        if (end.kind === "interrupted" && end.why === "shutdown") {
          this.logger.info(about(attempt), `Requeued ${name}, the worker is shutting down`);
          return;
        }
        this.stats.retried++;
        this.counters.retried++;
        this.logger.warn({ ...about(attempt), err: error }, `Retrying ${name}`);
        return;
      case "lost":
      case "gone":
        this.lost(attempt, lossText[status]);
    }
  }

  lost({ fields: { key, function: name }, interruptReason }: Attempt, reason: string = lossText.lost): void {
    this.logger.warn(
      { job: key, task: name },
      `lost the job, its outcome is dropped: ${interruptReason?.name === "LostError" ? interruptReason.message : reason}`,
    );
  }

  waitsAlone(key: string): void {
    this.logger.info(
      { job: key },
      "workers died while they ran this job, so that it runs alone: no other job starts in this process before it ends",
    );
  }

  crashed({ fields: { key, function: name } }: Attempt): void {
    this.logger.warn(
      { job: key, task: name },
      "the job ran when an uncaught error ended its worker, which counts as lost",
    );
  }

  uncounted({ fields: { key, function: name } }: Attempt, error: unknown): void {
    this.logger.error(
      { ...describe(error), job: key, task: name },
      "could not record that a job was lost with its worker; other workers will",
    );
  }

  overdue({ fields: { key, function: name }, interruption }: Attempt): void {
    this.logger.warn(
      { job: key, task: name, why: interruption },
      `Function '${name}' did not finish cancellation in time, it may be stuck or blocked`,
    );
  }

  refused({ fields: { key, function: name } }: Attempt): void {
    this.logger.warn({ job: key, task: name }, "the job's last run still goes on here, so it is given back");
  }

  unknown({ fields: { key, function: name } }: Attempt, seconds: number): void {
    this.logger.warn(
      { job: key, task: name },
      `Unknown task "${name}", given back for another worker (again after ${seconds} s)`,
    );
  }

  /**
   * Logs that the end of a job could not be recorded. Thousands may fail at once, when a worker stops while the
   * database is down, so all failures within `momentMs` share one line.
   */
  unsettled({ fields: { key } }: Attempt, { status }: Settlement, error: unknown): void {
    if (this.#unsettled.push({ key, status, error }) > 1) return;
    setTimeout(() => {
      const [first, ...others] = this.#unsettled;
      const jobs = this.#unsettled.slice(0, maxKeysPerLine).map((job) => job.key);
      this.#unsettled = [];
      if (others.length === 0)
        this.logger.error({ err: error, job: key, status }, "could not record how a job ended");
      else
        this.logger.error(
          { err: first?.error, jobs, count: others.length + 1 },
          "could not record how jobs ended; the error is that of the first",
        );
    }, momentMs);
  }

  #says(level: string): boolean {
    return this.logger.isLevelEnabled?.(level) ?? true;
  }
}
