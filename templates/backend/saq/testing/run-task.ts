/** Runs one task once, without a database and without a worker. */

import { defineQueue, type QueueConfig } from "../config/index.js";
import type { Capabilities } from "../core/capabilities.js";
import type { ClaimedJob, Receipt } from "../core/claim.js";
import type { JobFields } from "../core/job.js";
import { decodeJob, encodeJob } from "../core/wire.js";
import { Drafts } from "../queue/draft.js";
import { returnedSnooze, type Snooze, snoozeOf } from "../tasks/snooze.js";
import type {
  AnyTask,
  ApplyOptions,
  Context,
  JobContext,
  PayloadOf,
  ResultOf,
  TaskDefinition,
} from "../tasks/task.js";
import { Attempt, type AttemptHost } from "../worker/attempt/attempt.js";
import { type ContextServices, contextsWith } from "../worker/attempt/context.js";
import { invokeTask } from "../worker/attempt/invoke-task.js";
import type { AttemptResult } from "../worker/settlement/settlement.js";
import { transactionalSettlement } from "../worker/settlement/settlement.js";
import { finishInTransaction } from "../worker/settlement/transactional-finish.js";
import { CollectingLogger, type LogLine } from "./log.js";

type ContextOf<T> =
  T extends TaskDefinition<never, unknown, infer Ctx>
    ? Ctx
    : T extends (ctx: infer Ctx, ...rest: never[]) => unknown
      ? Ctx
      : never;

/** The members of ctx that start-up hooks would give to this task. */
type StateOf<T> = Omit<ContextOf<T>, keyof JobContext>;

/** Options of `runTask`. */
export interface RunTaskOptions<State = object> {
  /** The members that start-up hooks put on ctx, for instance `{ db }`. @defaultValue none */
  state?: State;
  /** Fields of the job, for instance `{ attempts: 2, meta: { tenant: 7 } }`. @defaultValue those of a first attempt */
  job?: Partial<Omit<JobFields, "function" | "kwargs" | "queueName" | "status">>;
  /** Aborts the run when it fires. @defaultValue none */
  signal?: AbortSignal;
  /** The time for the job and its updates. @defaultValue now */
  now?: Date;
}

type RunArguments<T> =
  Record<never, never> extends StateOf<T>
    ? undefined extends PayloadOf<T>
      ? [payload?: PayloadOf<T>, options?: RunTaskOptions<StateOf<T>>]
      : Record<never, never> extends PayloadOf<T>
        ? [payload?: PayloadOf<T>, options?: RunTaskOptions<StateOf<T>>]
        : [payload: PayloadOf<T>, options?: RunTaskOptions<StateOf<T>>]
    : [payload: PayloadOf<T>, options: RunTaskOptions<StateOf<T>> & { state: StateOf<T> }];

/** A job that the task enqueued, or whose result it waited for (`ctx.apply`). */
export interface EnqueuedByTask {
  /** The task itself, not its name. */
  task: AnyTask;
  /** The payload as it is stored, after JSON. */
  payload: unknown;
  /** The options of the job as the task passed them; of `ctx.apply` without `waitTimeout` and `signal`. */
  options: object;
}

/** What a run of `runTask` did. */
export interface TaskRun<Result = unknown> {
  /** The result as it is stored, after the task's `output` and JSON. */
  result: Result;
  /** The changes that `ctx.job.update` was given, in order. */
  updates: { progress?: number; meta?: Record<string, unknown> }[];
  /** The jobs that the task enqueued or applied, in order. */
  enqueued: EnqueuedByTask[];
  /** The lines that the task logged, in order. */
  log: LogLine[];
}

const queueName = "test";
const workerId = "test";
const capabilities: Capabilities = {
  storage: "runTask",
  transactions: true,
  push: true,
  groups: true,
  priorities: true,
  bulk: true,
};

/**
 * Runs a task as a worker would: the payload goes through JSON and the task's `input`, the result goes through its
 * `output` and JSON, and its timeout applies. `ctx` is the real one. It collects updates, log lines and enqueued jobs.
 * Enqueued jobs do not run, but jobs of `ctx.apply` run in the same way. Returns the result and what was collected.
 *
 * @throws what the task throws, also what `ctx.snooze` returns: `{ name: "Snooze", seconds }`
 * @throws the reason of its signal if it was interrupted
 * @throws InvalidPayloadError (invalid_payload) or InvalidJobError (invalid_job), as a real enqueue does
 * @throws InvalidResultError (invalid_result) if the task's `output` refuses the result, or if it cannot be stored
 * @example
 * const { result, updates } = await runTask(resizeImage, { url: "https://example.com/a.png" });
 */
export async function runTask<T extends AnyTask>(
  task: T,
  ...[payload, options]: RunArguments<T>
): Promise<TaskRun<ResultOf<T>>> {
  const { updates, enqueued, log, ...run } = collect(task, options ?? {});
  return { result: (await run.start(payload)) as ResultOf<T>, updates, enqueued, log };
}

function collect(task: AnyTask, options: RunTaskOptions) {
  const updates: TaskRun["updates"] = [];
  const enqueued: EnqueuedByTask[] = [];
  const logger = new CollectingLogger();
  const now = () => options.now?.getTime() ?? Date.now();
  const recordEnqueue = async (task: AnyTask, payload: unknown, jobOptions: object): Promise<JobFields> => {
    const fields = await storedFields(task, payload, jobOptions, now());
    enqueued.push({ task, payload: fields.kwargs, options: jobOptions });
    return fields;
  };
  const applyWith: ContextServices["applyWith"] = async (otherTask, payload, applyOptions = {}) => {
    const { waitTimeout: _, signal, ...jobOptions } = applyOptions;
    const { kwargs } = await recordEnqueue(otherTask, payload, jobOptions);
    const other = collect(otherTask, { ...options, job: {}, ...(signal && { signal }) });
    const result = await other.start(kwargs).catch((error: unknown) => {
      const snooze = snoozeOf(error);
      throw snooze ? withoutResult(otherTask, snooze) : error;
    });
    return result as ResultOf<typeof otherTask>;
  };
  const services: ContextServices = {
    queue: { name: queueName },
    workerId,
    worker: {
      id: workerId,
      concurrency: 1,
      metadata: null,
      runningKeys: [],
      stats: { complete: 0, failed: 0, retried: 0, aborted: 0 },
    },
    log: logger,
    enqueue: async (otherTask, ...args) => {
      const [payload, jobOptions = {}] = args as [payload?: unknown, options?: object];
      return { id: (await recordEnqueue(otherTask, payload, jobOptions)).key };
    },
    apply: (otherTask, ...args) =>
      applyWith(otherTask, ...(args as [payload?: unknown, options?: ApplyOptions])),
    applyWith,
  };
  const start = async (payload: unknown): Promise<unknown> => {
    const fields = await storedFields(task, payload, {}, now(), options.job);
    return attempt(task, fields, services, { ...options, now, updates });
  };
  return { updates, enqueued, log: logger.lines, start };
}

/** The error of `ctx.apply` if the other task was snoozed. It must not end the task that waits as a snooze. */
const withoutResult = (task: AnyTask, { seconds }: Snooze): Error =>
  new Error(
    `runTask: ctx.apply has no result, because task "${nameOf(task)}" threw ctx.snooze(${seconds}), and runTask runs ` +
      "each task only once. Let the task return in this test, or run it with drain",
  );

/**
 * Returns the name of the task's function. The task's real name is its key in a queue's `tasks`, which is not known
 * here.
 */
function nameOf(task: AnyTask): string {
  const { name } = typeof task === "function" ? task : task.run;
  return name === "" || name === "run" ? "(unnamed)" : name;
}

/** A queue with this task only. The types of `runTask` have checked the state that the task needs. */
const configOf = (task: AnyTask): QueueConfig =>
  defineQueue({
    name: queueName,
    dsn: "postgresql://none",
    tasks: { [nameOf(task)]: task as (ctx: Context, payload: never) => unknown },
  });

/** Returns the job as a worker finds it: validated, and through JSON. */
async function storedFields(
  task: AnyTask,
  payload: unknown,
  options: object,
  now: number,
  overrides: RunTaskOptions["job"] = {},
): Promise<JobFields> {
  const drafts = new Drafts(configOf(task));
  const name = nameOf(task);
  await drafts.validate(name, payload);
  const claimed = { status: "active", attempts: 1, started: now, touched: now, workerId } as const;
  const fields = { ...drafts.fields(name, payload, options, now), ...claimed, ...overrides };
  return decodeJob(encodeJob(fields), queueName, "active");
}

interface AttemptOptions extends Pick<RunTaskOptions, "state" | "signal"> {
  now: () => number;
  updates: TaskRun["updates"];
}

async function attempt(
  task: AnyTask,
  fields: JobFields,
  services: ContextServices,
  { state = {}, signal, now, updates }: AttemptOptions,
): Promise<unknown> {
  const config = configOf(task);
  const rules = () => ({ nowMs: now(), failedTtl: config.failedTtl, maxBytes: config.maxBytes });
  let resolveEnd: (result: AttemptResult) => void = () => {};
  const end = new Promise<AttemptResult>((resolve) => {
    resolveEnd = resolve;
  });
  const claim: ClaimedJob = {
    key: fields.key,
    receipt: {} as Receipt,
    due: fields.scheduled,
    document: "",
    firstStart: null,
  };
  const host: AttemptHost = {
    hardDeadlineMs: config.cancellationHardDeadline * 1_000,
    maxBytes: config.maxBytes,
    now,
    heartbeat: async (_claim, patch) => {
      const { touched: _, ...change } = JSON.parse(patch) as TaskRun["updates"][number] & { touched: number };
      updates.push(change);
      return true;
    },
    sendProgress: async (_attempt, change) => {
      updates.push(change);
    },
    findInterruption: async () => null,
    finish: (run, returned, client) =>
      finishInTransaction(
        { broker: { capabilities, finishWith: async () => claim.receipt }, config },
        run,
        returned,
        client,
        rules(),
      ),
    ended: (_run, result) => resolveEnd(result),
  };
  const run = new Attempt(host, claim, fields);
  const Context = contextsWith(state);
  const abort = () => run.interrupt("abort", "aborted by the test's signal");
  signal?.addEventListener("abort", abort);
  try {
    if (signal?.aborted) abort();
    run.run(() => invokeTask(config, null, run, new Context(services, run)));
    const result = await end;
    switch (result.kind) {
      case "threw":
        throw result.error;
      case "snoozed":
        throw result.snooze;
      case "interrupted":
        throw result.reason;
      case "returned": {
        const mistake = returnedSnooze(result.value);
        if (mistake !== null) throw new Error(mistake);
        const { patch } =
          run.transactionalFinish?.settlement ?? transactionalSettlement(run, result.value, rules());
        return (JSON.parse(patch) as { result?: unknown }).result ?? null;
      }
    }
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}
