/** What the web UI needs of a queue; the engine's `Queue` has it all. */
import type { JobFilter } from "../broker.js";
import type { JobFields } from "../job.js";
import type { AbortAnswer, RetryAnswer } from "../transitions.js";

export interface WebJob extends Pick<JobFields, "kwargs" | "result"> {
  /** The wire document (J-1). */
  toDocument(): Record<string, unknown>;
}

export interface WebQueue {
  readonly name: string;
  /** SAQ's info object (P-33), without jobs. */
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
