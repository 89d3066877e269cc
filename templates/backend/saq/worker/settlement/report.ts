/** Counts and logs the attempts of a worker: their starts, their recorded ends and their losses. */

import type { Settlement, SettleResult, WorkerStats } from "../../broker.js";
import { describe, type Logger } from "../../logger.js";
import type { QueueCounters } from "../../queue/types.js";
import { isNoRetry } from "../../tasks/no-retry.js";
import { type Attempt, lossText } from "../attempt/attempt.js";
import type { AttemptResult } from "./settlement.js";

/** Log fields of an attempt that is over. `ms` is 0 if the attempt was refused and never started. */
const logFieldsOf = ({ fields, durationMs }: Attempt) => ({
  job: fields.key,
  task: fields.function,
  ms: Math.round(durationMs),
});

/** Failed settlements within this time share one log line. */
const groupingMs = 100;
const maxKeysPerLine = 20;

export class Report {
  readonly stats: Omit<WorkerStats, "uptime"> = { complete: 0, failed: 0, retried: 0, aborted: 0 };

  #failedSettlements: { key: string; status: string; error: unknown }[] = [];

  /** `counters` are those of the queue object. Its other workers and its callers count there too. */
  constructor(
    private readonly logger: Logger,
    private readonly counters: Omit<QueueCounters, "started">,
  ) {}

  started({ fields }: Attempt): void {
    if (!this.#isEnabled("info")) return;
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
            { ...logFieldsOf(attempt), err: error },
            `${name} failed after ctx.finish; its job stays complete`,
          );
        } else if (end.kind === "snoozed") {
          this.logger.warn(
            logFieldsOf(attempt),
            `${name} threw ctx.snooze after ctx.finish; its job stays complete`,
          );
        }
        this.stats.complete++;
        this.counters.complete++;
        if (this.#isEnabled("info")) this.logger.info(logFieldsOf(attempt), `Finished ${name}`);
        return;
      case "failed":
        this.stats.failed++;
        this.counters.failed++;
        this.logger.error(
          { ...logFieldsOf(attempt), err: error },
          isNoRetry(error) ? `Failed ${name}: it threw NoRetry, so its job is not retried` : `Failed ${name}`,
        );
        return;
      case "aborted":
        this.stats.aborted++;
        this.counters.aborted++;
        this.logger.info(logFieldsOf(attempt), `Aborted ${name}`);
        return;
      case "queued":
        if (end.kind === "interrupted" && end.interruption === "shutdown") {
          this.logger.info(logFieldsOf(attempt), `Requeued ${name}, the worker is shutting down`);
          return;
        }
        if (end.kind === "snoozed") {
          this.logger.info(logFieldsOf(attempt), `Snoozed ${name}: ${end.snooze.message}`);
          return;
        }
        this.stats.retried++;
        this.counters.retried++;
        this.logger.warn({ ...logFieldsOf(attempt), err: error }, `Retrying ${name}`);
        return;
      case "lost":
      case "gone":
        this.lost(attempt, lossText[status]);
    }
  }

  lost(
    { fields: { key, function: name }, interruptReason }: Attempt,
    defaultReason: string = lossText.lost,
  ): void {
    const reason = interruptReason?.name === "LostError" ? interruptReason.message : defaultReason;
    this.logger.warn({ job: key, task: name }, `lost the job, so its end is not recorded: ${reason}`);
  }

  waitsAlone(key: string): void {
    this.logger.info(
      { job: key },
      "workers died while they ran this job, so it runs alone: no other job starts in this process before it ends",
    );
  }

  crashed({ fields: { key, function: name } }: Attempt): void {
    this.logger.warn(
      { job: key, task: name },
      "an uncaught error ended the worker while it ran this job; the job counts as lost",
    );
  }

  lossNotRecorded({ fields: { key, function: name } }: Attempt, error: unknown): void {
    this.logger.error(
      { ...describe(error), job: key, task: name },
      "could not record that this worker lost the job; other workers will record it",
    );
  }

  overdue({ fields: { key, function: name }, interruption }: Attempt): void {
    this.logger.warn(
      { job: key, task: name, interruption },
      `Function '${name}' did not finish cancellation in time, it may be stuck or blocked`,
    );
  }

  refused({ fields: { key, function: name } }: Attempt): void {
    this.logger.warn(
      { job: key, task: name },
      "the previous run of this job has not ended in this worker, so the job is given back",
    );
  }

  unknownTask({ fields: { key, function: name } }: Attempt, seconds: number): void {
    this.logger.warn(
      { job: key, task: name },
      `Unknown task "${name}": its job is given back for another worker, and is due again after ${seconds} s`,
    );
  }

  /**
   * Logs that the end of a job could not be recorded. Thousands may fail at once, when a worker stops while the
   * database is down, so all failures within `groupingMs` share one line.
   */
  settleFailed({ fields: { key } }: Attempt, { status }: Settlement, error: unknown): void {
    if (this.#failedSettlements.push({ key, status, error }) > 1) return;
    setTimeout(() => {
      const [first, ...others] = this.#failedSettlements;
      const jobs = this.#failedSettlements.slice(0, maxKeysPerLine).map((job) => job.key);
      this.#failedSettlements = [];
      if (others.length === 0)
        this.logger.error({ err: error, job: key, status }, "could not record how a job ended");
      else
        this.logger.error(
          { err: first?.error, jobs, count: others.length + 1 },
          "could not record how jobs ended; the error is that of the first job",
        );
    }, groupingMs);
  }

  #isEnabled(level: string): boolean {
    return this.logger.isLevelEnabled?.(level) ?? true;
  }
}
