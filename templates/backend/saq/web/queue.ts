/** What the web UI needs of a queue; the engine's `Queue` has it all. */
import type { JobCounts } from "../broker.js";
import type { JobFields, Status } from "../job.js";
import type { AbortAnswer, RetryAnswer } from "../transitions.js";

export interface WebJob extends Pick<JobFields, "key" | "kwargs" | "result" | "status" | "scheduled"> {
  /** The wire document (J-1). */
  toDocument(): Record<string, unknown>;
}

export interface WebQueueInfo {
  counts: JobCounts;
  jobs: Record<string, unknown>[];
}

export interface WebFilter {
  statuses: readonly Status[];
  offset: number;
  limit: number;
}

export interface WebQueue {
  readonly name: string;
  info(options?: Partial<WebFilter> & { jobs?: boolean }): Promise<WebQueueInfo>;
  list(filter: WebFilter): Promise<WebJob[]>;
  job(key: string): Promise<WebJob | null>;
  workers(): Promise<readonly object[]>;
  abort(key: string, error: string): Promise<AbortAnswer | null>;
  retry(key: string, options: { error: string; resetAttempts: boolean }): Promise<RetryAnswer | null>;
}
