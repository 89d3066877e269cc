/**
 * Tasks and their types. A task is a plain function `(ctx, payload) => result` or, if it needs defaults or runtime
 * validation, the value of `task({...})`. `enqueue` takes its payload and result types from here.
 */

import type { FailedAttempt } from "../core/attempt-history.js";
import type { Due, JobFields, JobOptions } from "../core/job.js";
import type { Jsonify } from "../core/json.js";
import type { TransactionClient } from "../core/transaction-client.js";
import { ConfigError } from "../errors.js";
import type { Logger } from "../logger.js";
import type { Snooze } from "./snooze.js";
import { type InputOf, isStandardSchema, type OutputOf, type StandardSchema } from "./validation.js";

/** What a caller may set for one enqueue, beside the payload. */
export interface EnqueueOptions extends JobOptions {
  /**
   * Unique identity, 1 to 2,000 bytes. While a job with this key has not ended, another enqueue with it returns null.
   * @defaultValue a new UUID
   */
  key?: string;
  /** The job does not run before this time: epoch seconds, a Date, or `inSeconds(n)`. @defaultValue 0, at once */
  scheduled?: Due;
  /**
   * -32768..32767, smaller runs earlier. Workers take negative ones only if their queue's `priorities` allow it.
   * @defaultValue 0
   */
  priority?: number;
  /**
   * At most `groupConcurrency` jobs of a group run at a time, one by default. At most 2,000 bytes.
   * @defaultValue none
   */
  groupKey?: string;
  /** Your own data beside the payload, at most the queue's `maxBytes` as JSON. @defaultValue {} */
  meta?: Record<string, unknown>;
  /**
   * A client inside your own transaction: the job is stored if and only if that transaction commits. Any object with
   * `query(text, values) => Promise<{ rows }>`.
   * @defaultValue none
   */
  client?: TransactionClient;
}

/** Options of `apply`: those of `enqueue` without `client`, because no worker can run a job of an open transaction. */
export type ApplyOptions = Omit<EnqueueOptions, "client"> & {
  /**
   * How long to wait for the end of the stored job, s; 0 and null: no limit. Does not change the job's own `timeout`.
   * @defaultValue null
   */
  waitTimeout?: number | null;
  /**
   * Ends the wait with the signal's reason, for instance when a client has disconnected. The job goes on.
   * @defaultValue none
   */
  signal?: AbortSignal;
};

/** The running job, as its task sees it. */
export interface RunningJob extends Readonly<Omit<JobFields, "progress" | "meta">> {
  /** The id of the job. On PostgreSQL it is the key. */
  readonly id: string;
  /** 0..1; set by `update`. */
  readonly progress: number;
  /** Set by `update`. The engine keeps some members of its own here. */
  readonly meta: Readonly<Record<string, unknown>>;
  /** The last ten failed attempts, the oldest first. */
  readonly history: readonly FailedAttempt[];
  /**
   * Stores progress (0..1) and meta, and counts as a heartbeat. Does nothing once the attempt is over. A new meta does
   * not remove the members that the engine stores there.
   *
   * Progress is best effort: while the database is unreachable the call returns after at most 1 s, and the latest value
   * is stored when the database is back. With meta the call waits until it is stored: for as long as results are kept
   * in an outage (10 minutes), or until the signal fires.
   *
   * @throws InvalidJobError (invalid_job) if progress is not a number of 0 to 1, or meta is not an object or is too
   *   large
   * @throws SaqError database_unavailable if meta could not be stored for 10 minutes; job_held if another transaction
   *   has held the job's row for 30 s
   * @example
   * await ctx.job.update({ progress: 0.5 });
   */
  update(change: { progress?: number; meta?: Record<string, unknown> }): Promise<void>;
}

/** A worker, as tasks and hooks see it. */
export interface WorkerView {
  readonly id: string;
  /** Maximum number of jobs that it runs at a time. */
  readonly concurrency: number;
  /** The `metadata` of the queue's configuration; null if it has none. */
  readonly metadata: Readonly<Record<string, unknown>> | null;
  /** Keys of the jobs that run now. */
  readonly runningKeys: readonly string[];
  /** Number of attempts so far, by how they ended. */
  readonly stats: Readonly<Record<"complete" | "failed" | "retried" | "aborted", number>>;
}

/** What a worker passes to its startup and shutdown hooks, and to every task. */
export interface WorkerContext {
  /** The queue that the worker works on. */
  readonly queue: { readonly name: string };
  readonly worker: WorkerView;
  /** The same as `worker.id`. */
  readonly workerId: string;
  /** In a task and the hooks around it, every line has the job's key and task name. */
  readonly log: Logger;
  /**
   * Enqueues another task of the same queue, passed as a value: `ctx.enqueue(resizeImage, { url })`. Returns null if
   * the key is taken.
   *
   * @throws ConfigError (config) if the task is not in the `tasks` of this queue
   * @throws InvalidPayloadError, InvalidJobError, SaqError key_held, database_unavailable and others, as
   *   `queue.enqueue` does
   * @example
   * const job = await ctx.enqueue(resizeImage, { url: "https://example.com/a.png" }, { priority: 1 });
   */
  enqueue<T extends AnyTask>(task: T, ...args: EnqueueArguments<T>): Promise<{ readonly id: string } | null>;
  /**
   * Enqueues another task of the same queue and waits for its result, as `queue.apply` does. This job keeps its slot
   * while it waits: if such jobs hold all slots of all workers (easily with concurrency 1), none of them goes on before
   * their timeouts end them. The wait ends with this job's signal.
   *
   * @throws ConfigError (config) if the task is not in the `tasks` of this queue
   * @throws JobError, JobGoneError, TimeoutError and others, as `queue.apply` does
   * @throws the reason of this job's signal if it fires
   * @example
   * const size = await ctx.apply(resizeImage, { url: "https://example.com/a.png" }, { waitTimeout: 30 });
   */
  apply<T extends AnyTask>(task: T, ...args: EnqueueArguments<T, ApplyOptions>): Promise<ResultOf<T>>;
}

/** What a worker passes to a task and to the hooks around it. */
export interface JobContext extends WorkerContext {
  /** The job that this attempt runs. */
  readonly job: RunningJob;
  /**
   * Fires when the attempt must end. Its `reason` is an Error named TimeoutError, AbortError, ShutdownError or
   * LostError. Pass it to `fetch`, timers and the like. What a task returns after the signal fired is ignored.
   */
  readonly signal: AbortSignal;
  /**
   * For `afterProcess` hooks: what the task threw, or the reason of its interruption; otherwise undefined, also after a
   * snooze.
   */
  readonly exception: unknown;
  /**
   * Returns an object to throw: the job then runs again after `seconds`, by the database's clock. The attempt does not
   * count, and it is no error: nothing is logged as one, and no retry is counted. `meta.snoozes` counts how often the
   * job was snoozed, without a limit. After the signal has fired, the reason of the signal decides (an abort, the
   * timeout, the end of the worker), and a snooze is ignored. The `name` of the object is "Snooze": a hook or a `catch`
   * recognizes it by that.
   *
   * @throws InvalidJobError (invalid_job) if `seconds` is not a number of 0 to 31,622,400 (366 days)
   * @example
   * if (!(await isReady(id))) throw ctx.snooze(60);
   */
  snooze(seconds: number): Snooze;
  /**
   * Completes the job inside the task's own transaction, as its last statement. The changes of the task and the end of
   * its job then commit together: the effect happens once, even if a process dies at any point. Returns the result,
   * for `return`. If the transaction commits, what the task returns or throws afterwards changes nothing. If it rolls
   * back, the job ends as the task does.
   *
   * @throws JobLostError (job_lost) if the attempt does not own the job any more; let the transaction roll back
   * @throws InvalidResultError (invalid_result) if the result cannot be stored, or the task's `output` refuses it
   * @throws SaqError already_finished at a second call, unless the transaction of the first call was rolled back;
   *   no_transaction if the client is not inside a transaction
   * @throws the errors of `client.query`
   * @example
   * await client.query("begin");
   * await client.query("update orders set paid = true where id = $1", [id]);
   * await ctx.finish({ paid: true }, { client });
   * await client.query("commit");
   */
  finish<R>(result: R, options: { client: TransactionClient }): Promise<R>;
}

/**
 * First argument of every task. `State` holds the members that the queue's hooks must add: `Context<{ db: Pool }>` has
 * `ctx.db`, and `defineQueue` does not compile with the task if no hook adds it.
 */
export type Context<State = unknown> = JobContext & Readonly<State>;

/** First argument of a task that runs in a thread: the members of `Context` that work there. */
export interface ThreadContext extends Pick<Context, "job" | "queue" | "workerId" | "log" | "snooze"> {
  /**
   * As in `Context`. A loop that never yields to the event loop sees that the signal has fired if it reads it each
   * time: `if (ctx.signal.aborted) return`. A loop that never reads it is ended with its thread, at the hard deadline.
   */
  readonly signal: AbortSignal;
}

/** A plain function as a task. `never` accepts every parameter type. */
export type TaskFunction = (ctx: never, payload: never) => unknown;

declare const taskTypes: unique symbol;

/** A task with defaults or a schema; created by `task()`. */
export interface TaskDefinition<Payload = never, Result = unknown, Ctx = never> extends JobOptions {
  readonly input?: StandardSchema | undefined;
  readonly output?: StandardSchema | undefined;
  /** The module that exports the task, if the task runs in a thread. */
  readonly thread?: string | undefined;
  readonly run: TaskFunction;
  /** Carries the types only; does not exist at run time. */
  readonly [taskTypes]?: { payload: (payload: Payload) => void; result: Result; ctx: (ctx: Ctx) => void };
}

export type AnyTask = TaskFunction | TaskDefinition;
export type TaskMap = Readonly<Record<string, AnyTask>>;

/** The payload that `enqueue` takes for a task. */
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

/** The result of a task, as its job stores it. */
export type ResultOf<T> =
  T extends TaskDefinition<never, infer R>
    ? R
    : T extends (...args: never[]) => infer R
      ? StoredResult<Awaited<R>>
      : never;

/** What a task returns, as it is stored: void and undefined become null. */
type StoredResult<R> = unknown extends R ? R : R extends void ? null : Jsonify<R>;

/**
 * `payload` may be left out if the task takes none, or if all members of the payload are optional. If the compiler does
 * not know the tasks (`Queue` without a type argument), `payload` may be anything.
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

/** What `run` of a task with this schema receives; without a schema, the type of its own parameter. */
type Received<Schema, Payload> = Schema extends StandardSchema ? OutputOf<Schema> : Payload;

/** What callers pass to a task with this schema. */
type Passed<Schema, Payload> = Jsonify<Schema extends StandardSchema ? InputOf<Schema> : Payload>;

/**
 * Defines a task with its own defaults and with validation by any Standard Schema. Returns the definition.
 *
 * `input`: callers pass the input of this schema, which is stored, and `run` receives its output. The payload is
 * checked when it is enqueued, in its JSON form, and again when the job runs. `output`: what `run` returns goes through
 * this schema before it is stored. A result that the schema refuses fails the job without a retry, because the same
 * task would return the same again.
 *
 * @throws ConfigError (config) if `run` is not a function, a schema is not a Standard Schema, or `thread` is not a
 *   `file:` address
 * @example
 * export const fetchPage = task({
 *   timeout: 60,
 *   retries: 3,
 *   run: async (ctx, { url }: { url: string }) => (await fetch(url, { signal: ctx.signal })).status,
 * });
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
    /** Schema of the payload. @defaultValue none, the payload is not checked */
    input?: Schema;
    /** Schema of the result. @defaultValue none, the result is not checked */
    output?: StandardSchema<Returned, Result>;
    /**
     * `thread: import.meta.url` runs the task in a worker thread, for long computations that would block all other
     * jobs. The thread loads the module again, so the module must export the task and import all that the task needs.
     * The payload arrives as a structured clone.
     *
     * @defaultValue none: the task runs in the worker's own thread
     */
    thread?: Thread;
    /** The task itself. What it returns is stored as JSON; what it throws becomes the job's error. */
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
      `task({ run }) must be a function, got ${typeof run}; write task({ run: async (ctx, payload) => ... })`,
    );
  }
  for (const name of ["input", "output"] as const) {
    const schema = definition[name];
    if (schema === undefined || isStandardSchema(schema)) continue;
    throw new ConfigError(
      `task({ ${name} }) must be a schema that implements Standard Schema (zod, valibot, arktype ...), got ${
        schema === null ? "null" : typeof schema
      }; create it with your library, for instance z.object({ ... })`,
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

/** Returns the defaults of a task. A plain function has none. */
export function optionsOfTask(task: AnyTask): JobOptions {
  if (typeof task === "function") return {};
  const { timeout, heartbeat, retries, ttl, retryDelay, retryBackoff } = task;
  return { timeout, heartbeat, retries, ttl, retryDelay, retryBackoff };
}

/** Looks up a task by its stored name. Only own properties count, so that a job named "constructor" finds nothing. */
export const findTask = (tasks: TaskMap, name: string): AnyTask | undefined =>
  Object.hasOwn(tasks, name) ? tasks[name] : undefined;

/** A task that runs in a thread. */
export type ThreadTask = TaskDefinition & { readonly thread: string };

export const isThreadTask = (task: AnyTask | undefined): task is ThreadTask =>
  typeof task === "object" && task.thread !== undefined;

/** Returns the function that runs the task. */
export const runnerOf = (task: AnyTask): TaskFunction => (typeof task === "function" ? task : task.run);
