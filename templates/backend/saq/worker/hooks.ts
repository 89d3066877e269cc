/** Calls the hooks of a queue's workers (W-8). */
import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";
import type { QueueConfig } from "../config/index.js";
import { ConfigError } from "../errors.js";
import type { Logger } from "../logger.js";
import type { Hooks } from "../tasks/hooks.js";
import type { WorkerContext } from "../tasks/task.js";
import type { Attempt } from "./attempt.js";
import { membersOf, type TaskContext } from "./context.js";
import { HookLimiter, type HookLimiterOptions } from "./hook-limiter.js";

/** Runs a function as if it were called from where this was taken. */
type Scope = <R>(call: () => R) => R;

/**
 * What the start-up hooks gave, one after the other. The first that throws ends it. They may take as long as they want;
 * one that takes longer than `timeoutMs` is logged, so that a worker which does not start says why.
 *
 * @throws ConfigError when two of them give the same member, or one gives a member that ctx has of its own
 */
export async function startUp(
  hooks: Hooks["startup"],
  ctx: WorkerContext,
  state: Record<string, unknown>,
  { timeoutMs, logger }: { timeoutMs: number; logger: Logger },
) {
  for (const [index, hook] of hooks.entries()) {
    const late = () =>
      logger.warn(
        { hook: index + 1, seconds: timeoutMs / 1_000 },
        "a startup hook has not ended yet; the worker takes jobs when it has",
      );
    const timer = timeoutMs > 0 ? setTimeout(late, timeoutMs) : undefined;
    try {
      for (const [name, value] of Object.entries(membersOf("startup", await hook(ctx)) ?? {})) {
        if (name in state) throw new ConfigError(`Two startup hooks answered a member "${name}"`);
        state[name] = value;
      }
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Each is called, whatever the others do: one that fails or does not end in time is logged. */
export async function shutDown(
  hooks: Hooks["shutdown"],
  ctx: WorkerContext,
  { timeoutMs, logger }: { timeoutMs: number; logger: Logger },
): Promise<void> {
  const limiter = new HookLimiter({ max: 1, timeoutMs });
  for (const hook of hooks) {
    try {
      await limiter.end(hook(ctx));
    } catch (error) {
      logger.error({ err: error }, "Failed to run shutdown hook");
    }
  }
}

/** The hooks around one attempt. */
export class AroundJobs {
  readonly #scopes = new WeakMap<Attempt, { ctx: TaskContext; scope: Scope | null }>();

  readonly #limiter: HookLimiter;

  constructor(
    private readonly hooks: Pick<Hooks, "beforeProcess" | "afterProcess">,
    limits: HookLimiterOptions,
    private readonly logger: Logger,
  ) {
    this.#limiter = new HookLimiter(limits);
  }

  /** How many hooks after a task run and wait, and how many were left behind. */
  get counts(): HookLimiter["counts"] {
    return this.#limiter.counts;
  }

  /**
   * Runs the hooks and then the task. Each attempt has an asynchronous scope of its own, so that what a hook puts into
   * an AsyncLocalStorage by `enterWith` before it first waits is seen by this job's task and by no other (W-10).
   */
  run(attempt: Attempt, ctx: TaskContext, task: () => unknown): unknown {
    const around = { ctx, scope: null as Scope | null };
    this.#scopes.set(attempt, around);
    if (this.hooks.beforeProcess.length === 0) return task();
    return new AsyncResource("saq.job").runInAsyncScope(async () => {
      try {
        for (const hook of this.hooks.beforeProcess) {
          Object.assign(ctx, membersOf("beforeProcess", await hook(ctx)));
          // The job goes back or fails; a task that has not begun does not begin any more (D-42).
          if (attempt.cutReason) throw attempt.cutReason;
        }
      } finally {
        around.scope = AsyncLocalStorage.snapshot();
      }
      return task();
    });
  }

  /** When the outcome is recorded. Nothing that a hook does changes it. */
  async ended(attempt: Attempt): Promise<void> {
    const around = this.#scopes.get(attempt);
    if (!around || this.hooks.afterProcess.length === 0) return;
    await this.#limiter.run(() => this.#afterProcess(attempt, around));
  }

  async #afterProcess(
    attempt: Attempt,
    { ctx, scope }: { ctx: TaskContext; scope: Scope | null },
  ): Promise<void> {
    for (const hook of this.hooks.afterProcess) {
      try {
        await this.#limiter.end(scope ? scope(() => hook(ctx)) : hook(ctx));
      } catch (error) {
        this.logger.error({ err: error, job: attempt.fields.key }, "Failed to run after process hook");
      }
    }
  }
}

/** Null where there are no hooks. At most `concurrency` hooks after tasks run at a time, each for `hookTimeout`. */
export const aroundJobs = (config: QueueConfig, logger: Logger): AroundJobs | null =>
  config.beforeProcess.length + config.afterProcess.length > 0
    ? new AroundJobs(config, { max: config.concurrency, timeoutMs: config.hookTimeout * 1_000 }, logger)
    : null;
