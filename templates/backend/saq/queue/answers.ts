/** What a queue takes and answers, as types. */
import type { JobCounts } from "../broker.js";
import type { JobGoneError } from "../errors.js";
import type { Refusal } from "../new-job.js";
import type { EnqueueArguments, EnqueueOptions, PayloadOf, ResultOf, TaskMap } from "../tasks/task.js";
import type { Job, JobOverrides } from "./handle.js";
import type { JobError } from "./results.js";

type TaskName<Tasks extends TaskMap> = keyof Tasks & string;

/** What `enqueue` takes after the task's name, or after a job. */
export type EnqueueCall<Tasks extends TaskMap, Target, Key> = Target extends Job
  ? [overrides?: JobOverrides]
  : Target extends keyof Tasks
    ? EnqueueArguments<Tasks[Target], EnqueueOptions & { key?: Key }>
    : never;

/** What `enqueue` answers: null only where a key of the caller's own may be taken. */
export type Enqueued<Tasks extends TaskMap, Target, Key> =
  Target extends Job<infer Result>
    ? Job<Result> | null
    : Target extends keyof Tasks
      ? Job<ResultOf<Tasks[Target]>> | ([Key] extends [undefined] ? never : null)
      : never;

/** What became of an enqueue, with the reason of a refusal (D-31). */
export type EnqueueAnswer<Result = unknown> =
  | { enqueued: true; job: Job<Result> }
  | { enqueued: false; reason: Refusal; key: string };

/** One entry of `enqueueMany`. */
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

/** One item of `map`; anything where the tasks are not known to the compiler. */
export type MapItem<T> = [PayloadOf<T>] extends [never] ? unknown : PayloadOf<T>;

/** One result of `map`. */
export type MapResult<T, ReturnExceptions extends boolean> =
  | ResultOf<T>
  | (ReturnExceptions extends true ? JobError | JobGoneError : never);

/** SAQ's view of a queue (P-33), with all counts. */
export interface QueueInfo {
  name: string;
  queued: number;
  active: number;
  scheduled: number;
  counts: JobCounts;
  workers: Record<string, { stats: object; metadata: object | null; queue_key: string }>;
  jobs: Record<string, unknown>[];
}

/** What happened to jobs through one queue object: by its workers in this process, `finish`, `retry` and `abort`. */
export interface QueueCounters {
  complete: number;
  failed: number;
  retried: number;
  aborted: number;
  /** When the queue object was made, epoch ms. */
  readonly started: number;
}
