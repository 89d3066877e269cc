/**
 * Changes of many jobs: the decision about one of them, as for a change of a single job, with the reason of a refusal.
 */
import type { JobFields } from "./job.js";
import { isTerminal } from "./job.js";
import type { StoredJob } from "./stored-job.js";
import { abortJob, type Decision, deleteJob, retryJob, runJobNow } from "./transitions.js";

export const bulkActions = ["retry", "abort", "delete", "runNow"] as const;
/**
 * What is done with each job. `retry`: a finished job waits again. `abort`: a waiting job ends, a running job is asked
 * to end. `delete`: a job that does not run is deleted. `runNow`: a job that waits for its time is due now.
 */
export type BulkAction = (typeof bulkActions)[number];

/**
 * Why a job that matches was not changed.
 *
 * - `locked`: another transaction holds the job.
 * - `unreadable`: its stored document cannot be read.
 * - `not_finished`: it cannot be retried, because it waits or runs.
 * - `finished`: it cannot be aborted, because it is finished.
 * - `aborting`: it is being aborted already.
 * - `running`: it cannot be deleted, because it runs.
 * - `not_waiting`: it cannot be made due, because it runs or is finished.
 * - `already_due`: it is due already.
 * - `schedule`: it is a tick of a recurring task; `queue.schedules.run` runs such a task now.
 */
export type SkipReason =
  | "locked"
  | "unreadable"
  | "not_finished"
  | "finished"
  | "aborting"
  | "running"
  | "not_waiting"
  | "already_due"
  | "schedule";

/** `requested`: the job runs, and was asked to end. */
export type BulkAnswer = "changed" | "requested" | Exclude<SkipReason, "locked">;

interface BulkSettings {
  /** The error of a job that is retried or aborted. */
  error: string;
  /** A retry resets the attempts. */
  resetAttempts: boolean;
  /** Minimum time to keep a failed job, s. */
  failedTtl: number;
}

/** Decides about one job. `nowMs` is the database's clock, epoch ms. */
export function decideBulk(
  action: BulkAction,
  row: StoredJob,
  nowMs: number,
  { error, resetAttempts, failedTtl }: BulkSettings,
): Decision<BulkAnswer> {
  switch (action) {
    case "retry": {
      const { change, answer } = retryJob(row, error, nowMs, resetAttempts);
      return { change, answer: answer === "queued" ? "changed" : answer };
    }
    case "abort": {
      const { change, answer } = abortJob(row, error, nowMs, failedTtl);
      if (answer === "not_active") return { change, answer: "finished" };
      return { change, answer: answer === "aborted" ? "changed" : change ? "requested" : "aborting" };
    }
    case "delete": {
      const { change, answer } = deleteJob(row);
      return { change, answer: answer === "deleted" ? "changed" : answer };
    }
    case "runNow": {
      const { change, answer } = runJobNow(row, nowMs);
      return { change, answer: answer === "due" ? "changed" : answer };
    }
  }
}

/**
 * True if a change that began at `startMs` (epoch ms) may change the job. A job that was enqueued later does not belong
 * to it, and neither does one that has finished later: a job that is retried and fails again would be retried again and
 * again. The same applies to a job that was made due, and now waits for its next attempt.
 */
export function belongsTo(action: BulkAction, job: JobFields, startMs: number): boolean {
  if (job.queued > startMs) return false;
  if (isTerminal(job.status)) return job.completed <= startMs;
  return action !== "runNow" || job.attempts === 0 || job.touched <= startMs;
}
