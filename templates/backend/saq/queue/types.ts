/** Types of what a queue takes and returns. */
import type { JobCounts } from "../broker.js";
import type { Refusal } from "../core/new-job.js";
import type { Pause } from "../core/pause.js";
import type { JobGoneError } from "../errors.js";
import type { EnqueueArguments, EnqueueOptions, PayloadOf, ResultOf, TaskMap } from "../tasks/task.js";
import type { Job, JobOverrides } from "./job-handle.js";
import type { JobError } from "./results.js";

type TaskName<Tasks extends TaskMap> = keyof Tasks & string;

/** The arguments of `enqueue` after the name of the task, or after a job. */
export type EnqueueCall<Tasks extends TaskMap, Target, Key> = Target extends Job
  ? [overrides?: JobOverrides]
  : Target extends keyof Tasks
    ? EnqueueArguments<Tasks[Target], EnqueueOptions & { key?: Key }>
    : never;

/**
 * The result of `enqueue`. It may be null only if the key may be taken: a key that the caller chose, or that of a job.
 */
export type Enqueued<Tasks extends TaskMap, Target, Key> =
  Target extends Job<infer Result>
    ? Job<Result> | null
    : Target extends keyof Tasks
      ? Job<ResultOf<Tasks[Target]>> | ([Key] extends [undefined] ? never : null)
      : never;

/** The outcome of `enqueueDetailed`, with the reason if the job was refused. */
export type EnqueueAnswer<Result = unknown> =
  | { enqueued: true; job: Job<Result> }
  | { enqueued: false; reason: Refusal; key: string };

/** One entry of `enqueueMany`: the name of a task, its payload, and the options of this job. */
export type EnqueueEntry<Tasks extends TaskMap> = {
  [Name in TaskName<Tasks>]: { task: Name } & PayloadMember<Tasks[Name]> & Omit<EnqueueOptions, "client">;
}[TaskName<Tasks>];
type PayloadMember<T> = [PayloadOf<T>] extends [never]
  ? { payload?: unknown }
  : undefined extends PayloadOf<T>
    ? { payload?: PayloadOf<T> }
    : Record<never, never> extends PayloadOf<T>
      ? { payload?: PayloadOf<T> }
      : { payload: PayloadOf<T> };

/** One item of `map`; any value if the compiler does not know the tasks. */
export type MapItem<T> = [PayloadOf<T>] extends [never] ? unknown : PayloadOf<T>;

/** One result of `map`. */
export type MapResult<T, ReturnExceptions extends boolean> =
  | ResultOf<T>
  | (ReturnExceptions extends true ? JobError | JobGoneError : never);

/** SAQ's info object about a queue, with all counts. */
export interface QueueInfo {
  name: string;
  /** Number of jobs that wait and are due. */
  queued: number;
  /** Number of jobs that run, without those that are being aborted. */
  active: number;
  /** Number of jobs that wait and are not due yet. */
  scheduled: number;
  counts: JobCounts;
  /** The pauses that are in effect: that of the whole queue first, then those of tasks and groups. */
  paused: Pause[];
  /** The living workers by their id. */
  workers: Record<string, { stats: object; metadata: object | null; queue_key: string }>;
  /** Wire documents of jobs; empty unless the call has `jobs: true`. */
  jobs: Record<string, unknown>[];
}

/**
 * Counts of what happened to jobs through one queue object: through its workers in this process, `finish`, `retry` and
 * `abort`.
 */
export interface QueueCounters {
  complete: number;
  failed: number;
  /** Attempts that failed and were queued again, and calls of `retry`. */
  retried: number;
  aborted: number;
  /** When the queue object was created, epoch ms. */
  readonly started: number;
}
