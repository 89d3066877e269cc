/**
 * Tasks and their types. A task is a plain function `(ctx, payload) => result` or, when it needs defaults or runtime
 * validation, the value of `task({...})`. Payload and result types flow from here to `enqueue`.
 */
import { ConfigError } from "../errors.js";
import type { Due, JobFields, JobOptions } from "../job.js";
import type { Jsonify } from "../json.js";
import type { Logger } from "../logger.js";
import { type InputOf, isStandardSchema, type OutputOf, type StandardSchema } from "./validation.js";

/** What a caller may set for one enqueue beside the payload. */
export interface EnqueueOptions extends JobOptions {
  /** Unique identity. While a job with this key is alive, another enqueue answers null (V-5.3). */
  key?: string;
  /** Not before: epoch seconds, a Date, or `inSeconds(n)`. */
  scheduled?: Due;
  /** -32768..32767, smaller runs earlier. Negative ones are parked unless a worker asks for them (P-14). */
  priority?: number;
  /** At most one job of a group runs at a time. */
  groupKey?: string;
  meta?: Record<string, unknown>;
  /**
   * A client inside a transaction of yours: the job is stored if and only if that transaction commits. Anything with
   * `query(text, values) => Promise<{ rows }>`.
   */
  client?: TransactionClient;
}

/** Options of `apply`: those of `enqueue`, without a transaction, whose jobs nobody can run before it ends. */
export type ApplyOptions = Omit<EnqueueOptions, "client"> & {
  /**
   * How long to wait for the end of the stored job, s; 0 and null: no limit. The job's own `timeout` is another matter
   * (D-65). @defaultValue null
   */
  waitTimeout?: number | null;
  /** Ends the wait with its reason, for instance when a client hung up; the job goes on. */
  signal?: AbortSignal;
};

export interface TransactionClient {
  query(text: string, values: unknown[]): Promise<{ rows: Record<string, unknown>[] }>;
}

/** The running job, as its task sees it. */
export interface RunningJob extends Readonly<Omit<JobFields, "progress" | "meta">> {
  readonly id: string;
  readonly progress: number;
  readonly meta: Readonly<Record<string, unknown>>;
  /**
   * Stores progress (0..1) and meta, and counts as a sign of life (J-20). A no-op once the attempt is over. Of the old
   * meta what the engine keeps there stays.
   *
   * Progress is best effort: while the database is away the call returns after at most 1 s, and the latest value is
   * stored when the database is back. Meta is waited for: for as long as results are kept in an outage (10 minutes), or
   * until the signal fires.
   *
   * @throws InvalidJobError when progress is not a number of 0 to 1, or meta no object
   */
  update(change: { progress?: number; meta?: Record<string, unknown> }): Promise<void>;
}

/** A worker, as tasks and hooks see it. */
export interface WorkerView {
  readonly id: string;
  /** Jobs that it runs at a time. */
  readonly concurrency: number;
  readonly metadata: Readonly<Record<string, unknown>> | null;
  /** Keys of the jobs that it runs now. */
  readonly runningKeys: readonly string[];
  /** Attempts so far, by their end. */
  readonly stats: Readonly<Record<"complete" | "failed" | "retried" | "aborted", number>>;
}

/** What a worker gives to its start-up and shutdown hooks, and to every task. */
export interface WorkerContext {
  readonly queue: { readonly name: string };
  readonly worker: WorkerView;
  readonly workerId: string;
  /** In a task and the hooks around it, with the job's key and task name in every line. */
  readonly log: Logger;
  /** Enqueues another task of the same queue, given by value: `ctx.enqueue(resizeImage, { url })`. */
  enqueue<T extends AnyTask>(task: T, ...args: EnqueueArguments<T>): Promise<{ readonly id: string } | null>;
  /**
   * Enqueues another task of the same queue and waits for its result, as `queue.apply` does. This job keeps its slot
   * meanwhile: where all slots of all workers are taken by jobs that wait so (concurrency 1!), none of them goes on
   * before their timeouts end them. The wait ends with this job's signal.
   */
  apply<T extends AnyTask>(task: T, ...args: EnqueueArguments<T, ApplyOptions>): Promise<ResultOf<T>>;
}

/** What a worker gives to a task and to the hooks around it. */
export interface JobContext extends WorkerContext {
  readonly job: RunningJob;
  /**
   * Fires when the attempt must end: its `reason` is an Error named TimeoutError, AbortError, ShutdownError or
   * LostError. Pass it to `fetch`, timers and the like; what a task returns after it fired is ignored (W-23).
   */
  readonly signal: AbortSignal;
  /** For the hooks after the task: what it threw, or the reason for which it was interrupted; else undefined. */
  readonly exception: unknown;
  /**
   * Completes the job inside a transaction of the task's own, as its last statement, so that what the task did and that
   * it was done commit together: the effect happens once, whatever dies when. Answers the result, for `return`. When
   * the transaction commits, what the task returns or throws afterwards changes nothing; when it rolls back, the job
   * ends as the task does.
   *
   * @throws JobLostError when the job is not this attempt's any more; let the transaction roll back
   * @throws InvalidResultError when the result cannot be stored, or the task's `output` refuses it
   * @throws SaqError already_finished at a second call, unless the first one's transaction was rolled back;
   * no_transaction when the client is not inside one
   */
  finish<R>(result: R, options: { client: TransactionClient }): Promise<R>;
}

/**
 * First argument of every task. `State` is what the queue's start-up hooks must have given:
 * `Context<{ db: Pool }>` has `ctx.db`, and `defineQueue` refuses the task where no hook gives it.
 */
export type Context<State = unknown> = JobContext & Readonly<State>;

/** First argument of a task that runs in a thread: what can reach it there. */
export interface ThreadContext extends Pick<Context, "job" | "queue" | "workerId" | "log"> {
  /**
   * As in `Context`. A loop that lets no event in sees it fired when it asks anew: `if (ctx.signal.aborted) return`.
   * One that never asks is ended with its thread, at the hard deadline.
   */
  readonly signal: AbortSignal;
}

/** A plain function as a task. `never` accepts every parameter type. */
export type TaskFunction = (ctx: never, payload: never) => unknown;

declare const taskTypes: unique symbol;

/** A task with defaults or a schema; made by `task()`. */
export interface TaskDefinition<Payload = never, Result = unknown, Ctx = never> extends JobOptions {
  readonly input?: StandardSchema | undefined;
  readonly output?: StandardSchema | undefined;
  /** The module that exports the task, where it runs in a thread. */
  readonly thread?: string | undefined;
  readonly run: TaskFunction;
  /** Carries the types only; never there at run time. */
  readonly [taskTypes]?: { payload: (payload: Payload) => void; result: Result; ctx: (ctx: Ctx) => void };
}

export type AnyTask = TaskFunction | TaskDefinition;
export type TaskMap = Readonly<Record<string, AnyTask>>;

/** What `enqueue` takes for a task. */
export type PayloadOf<T> =
  T extends TaskDefinition<infer P, unknown>
    ? P
    : T extends (...args: infer A) => unknown
      ? A extends [] | [unknown]
        ? undefined
        : A extends [unknown, (infer P)?]
          ? undefined extends A[1]
            ? Jsonify<P> | undefined
            : Jsonify<P>
          : never
      : never;

/** What a task's job holds as its result. */
export type ResultOf<T> =
  T extends TaskDefinition<never, infer R>
    ? R
    : T extends (...args: never[]) => infer R
      ? StoredResult<Awaited<R>>
      : never;

/** What a task returns, as it is stored: nothing is null. */
type StoredResult<R> = unknown extends R ? R : R extends void ? null : Jsonify<R>;

/**
 * `payload` may be left out when the task takes none, or when every member of it is optional. Where the tasks are not
 * known to the compiler (`Queue` without a type argument), it is anything.
 */
export type EnqueueArguments<T, O extends EnqueueOptions = EnqueueOptions> = [PayloadOf<T>] extends [never]
  ? [payload?: unknown, options?: O]
  : PayloadOf<T> extends infer P
    ? undefined extends P
      ? [payload?: P, options?: O]
      : Record<never, never> extends P
        ? [payload?: P, options?: O]
        : [payload: P, options?: O]
    : never;

/** What `run` of a task with this schema receives; without a schema what it says itself. */
type Received<Schema, Payload> = Schema extends StandardSchema ? OutputOf<Schema> : Payload;

/** What callers pass to a task with this schema. */
type Passed<Schema, Payload> = Jsonify<Schema extends StandardSchema ? InputOf<Schema> : Payload>;

/**
 * A task with defaults of its own and validation by any Standard Schema.
 *
 * `input`: its input is what callers pass and what is stored; `run` receives its output. Checked when enqueued, in the
 * form that JSON gives it, and again when run. `output`: what `run` returns goes through it before it is stored; a
 * result that it refuses fails the job for good, since the same task would return the same again (D-40).
 */
export function task<
  const Schema extends StandardSchema | undefined = undefined,
  Payload = undefined,
  Returned = unknown,
  Result = Awaited<Returned>,
  Thread extends string | undefined = undefined,
  Ctx = Thread extends string ? ThreadContext : Context,
>(
  definition: JobOptions & {
    input?: Schema;
    output?: StandardSchema<Returned, Result>;
    /**
     * `thread: import.meta.url` runs the task in a worker thread, for what computes for long and would hold up all
     * other jobs (W-13). The thread loads the module again, so that it must export the task; imports of its own are all
     * it needs to know. The payload arrives as a structured clone.
     */
    thread?: Thread;
    run: (
      ctx: Thread extends string ? ThreadContext : Ctx,
      payload: Received<Schema, Payload>,
    ) => Returned | Promise<Returned>;
  },
): TaskDefinition<Passed<Schema, Payload>, StoredResult<Result>, Thread extends string ? Context : Ctx>;
export function task(definition: TaskDefinition): TaskDefinition {
  const { run, thread } = definition;
  if (typeof run !== "function") {
    throw new ConfigError(
      "task({ run }) needs a function as run: task({ run: async (ctx, payload) => ... })",
    );
  }
  for (const name of ["input", "output"] as const) {
    const schema = definition[name];
    if (schema === undefined || isStandardSchema(schema)) continue;
    throw new ConfigError(
      `task({ ${name} }) must be a schema that speaks Standard Schema (zod, valibot, arktype ...), got ${
        schema === null ? "null" : typeof schema
      }; wrap a plain object with your library: z.object({ ... })`,
    );
  }
  if (thread !== undefined && !(typeof thread === "string" && thread.startsWith("file:"))) {
    throw new ConfigError(
      `task({ thread }) must be import.meta.url, the address of the module that exports the task, got ${String(thread)}`,
    );
  }
  return definition;
}

export const inputSchemaOf = (task: AnyTask): StandardSchema | undefined =>
  typeof task === "function" ? undefined : task.input;

export const outputSchemaOf = (task: AnyTask): StandardSchema | undefined =>
  typeof task === "function" ? undefined : task.output;

/** The defaults that a task brings along. A plain function has none. */
export function optionsOfTask(given: AnyTask): JobOptions {
  if (typeof given === "function") return {};
  const { timeout, heartbeat, retries, ttl, retryDelay, retryBackoff } = given;
  return { timeout, heartbeat, retries, ttl, retryDelay, retryBackoff };
}

/** Looks up a task by its stored name; own properties only, so that a job named "constructor" finds nothing. */
export const findTask = (tasks: TaskMap, name: string): AnyTask | undefined =>
  Object.hasOwn(tasks, name) ? tasks[name] : undefined;

/** A task that runs in a thread. */
export type ThreadTask = TaskDefinition & { readonly thread: string };

export const isThreadTask = (given: AnyTask | undefined): given is ThreadTask =>
  typeof given === "object" && given.thread !== undefined;

/** The function that does the work. */
export const runnerOf = (given: AnyTask): TaskFunction => (typeof given === "function" ? given : given.run);
