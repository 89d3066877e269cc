/** The part of a queue that the web UI uses. The engine's `Queue` implements it. */
import type { JobFilter } from "../broker.js";
import type { FailedAttempt } from "../core/attempt-history.js";
import type { JobFields } from "../core/job.js";
import type { AbortAnswer, RetryAnswer } from "../core/transitions.js";

export interface WebJob extends Pick<JobFields, "kwargs" | "result"> {
  /** The last failed attempts, the oldest first. */
  readonly history: readonly FailedAttempt[];
  /** Returns the job as the JSON object that SAQ stores. */
  toDocument(): Record<string, unknown>;
}

export interface WebQueue {
  readonly name: string;
  /** Returns SAQ's info object: name, workers and counts of the queue, without jobs. */
  info(): Promise<object>;
  list(filter: Partial<JobFilter>): Promise<WebJob[]>;
  job(key: string): Promise<WebJob | null>;
  workers(): Promise<readonly object[]>;
  readonly schedules: {
    list(): Promise<readonly object[]>;
    run(name: string): Promise<{ readonly key: string }>;
    pause(name: string): Promise<void>;
    resume(name: string): Promise<void>;
  };
  abort(key: string, error: string): Promise<AbortAnswer | null>;
  retry(key: string, options: { error: string; resetAttempts: boolean }): Promise<RetryAnswer | null>;
}
