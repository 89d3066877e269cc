/** Calls the hooks of a queue's workers. */
import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";
import type { QueueConfig } from "../../config/index.js";
import { ConfigError } from "../../errors.js";
import type { Logger } from "../../logger.js";
import type { Hooks } from "../../tasks/hooks.js";
import type { WorkerContext } from "../../tasks/task.js";
import { runAroundHooks } from "./around-hooks.js";
import type { Attempt } from "./attempt.js";
import { membersOf, type TaskContext } from "./context.js";
import { HookLimiter, type HookLimiterOptions } from "./hook-limiter.js";

/** Runs a function in the asynchronous context in which this scope was captured. */
type Scope = <R>(call: () => R) => R;

/**
 * Runs the startup hooks one after another and adds the members that they return to `state`. The first hook that throws
 * ends the start. A hook may take any time; one that takes longer than `timeoutMs` is logged, so that the log shows why
 * a worker does not start.
 *
 * @throws what a hook throws
 * @throws ConfigError if two hooks return the same member, or a hook returns a member that every ctx has
 */
export async function runStartupHooks(
  hooks: Hooks["startup"],
  ctx: WorkerContext,
  state: Record<string, unknown>,
  { timeoutMs, logger }: { timeoutMs: number; logger: Logger },
) {
  for (const [index, hook] of hooks.entries()) {
    const warn = () =>
      logger.warn(
        { hook: index + 1, seconds: timeoutMs / 1_000 },
        "a startup hook has not ended yet; the worker claims no jobs before it ends",
      );
    const timer = timeoutMs > 0 ? setTimeout(warn, timeoutMs) : undefined;
    try {
      for (const [name, value] of Object.entries(membersOf("startup", await hook(ctx)) ?? {})) {
        if (name in state)
          throw new ConfigError(`Two startup hooks returned a member "${name}". Rename one of them`);
        state[name] = value;
      }
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Calls each shutdown hook, even if another one fails. A hook that fails or does not end in time is logged. */
export async function runShutdownHooks(
  hooks: Hooks["shutdown"],
  ctx: WorkerContext,
  { timeoutMs, logger }: { timeoutMs: number; logger: Logger },
): Promise<void> {
  const limiter = new HookLimiter({ max: 1, timeoutMs });
  for (const hook of hooks) {
    try {
      await limiter.waitFor(hook(ctx));
    } catch (error) {
      logger.error({ err: error }, "Failed to run shutdown hook");
    }
  }
}

/** Runs the hooks before, around and after each attempt. */
export class JobHooks {
  readonly #scopes = new WeakMap<Attempt, { ctx: TaskContext; scope: Scope | null }>();

  readonly #limiter: HookLimiter;

  constructor(
    private readonly hooks: Pick<Hooks, "beforeProcess" | "aroundProcess" | "afterProcess">,
    limits: HookLimiterOptions,
    private readonly logger: Logger,
  ) {
    this.#limiter = new HookLimiter(limits);
  }

  /**
   * How many `afterProcess` hooks run, and how many wait. `overdue` counts the hooks that still run after their
   * timeout, those of `aroundProcess` too.
   */
  get counts(): HookLimiter["counts"] {
    return this.#limiter.counts;
  }

  /**
   * Runs the `beforeProcess` hooks, and then the task inside of the `aroundProcess` hooks. Each attempt has its own asynchronous scope: a value that a hook
   * sets with `AsyncLocalStorage.enterWith`, before it first awaits, is seen by this job's task and by no other.
   */
  run(attempt: Attempt, ctx: TaskContext, task: () => unknown): unknown {
    const jobScope = { ctx, scope: null as Scope | null };
    this.#scopes.set(attempt, jobScope);
    const { beforeProcess, aroundProcess } = this.hooks;
    if (beforeProcess.length + aroundProcess.length === 0) return task();
    return new AsyncResource("saq.job").runInAsyncScope(async () => {
      try {
        for (const hook of beforeProcess) {
          Object.assign(ctx, membersOf("beforeProcess", await hook(ctx)));
          // The attempt must end, so a task that has not started is not started any more.
          if (attempt.interruptReason) throw attempt.interruptReason;
        }
      } finally {
        jobScope.scope = AsyncLocalStorage.snapshot();
      }
      return aroundProcess.length === 0 ? task() : this.#runAround(attempt, ctx, task);
    });
  }

  #runAround(attempt: Attempt, ctx: TaskContext, task: () => unknown): Promise<unknown> {
    return runAroundHooks(this.hooks.aroundProcess, ctx, task, {
      interruptReason: () => attempt.interruptReason,
      waitFor: (returned) => this.#limiter.waitFor(returned),
      onTimeout: (error) =>
        this.logger.error(
          { err: error, job: attempt.fields.key },
          "an aroundProcess hook has not ended in time; the attempt ends without it",
        ),
    });
  }

  /** Runs the `afterProcess` hooks, when the end of the attempt is recorded. No hook can change that end. */
  async ended(attempt: Attempt): Promise<void> {
    const jobScope = this.#scopes.get(attempt);
    if (!jobScope || this.hooks.afterProcess.length === 0) return;
    await this.#limiter.run(() => this.#afterProcess(attempt, jobScope));
  }

  async #afterProcess(
    attempt: Attempt,
    { ctx, scope }: { ctx: TaskContext; scope: Scope | null },
  ): Promise<void> {
    // The scope of the hooks before the task is inside of the span already.
    const inside: Scope = scope ?? ((call) => (attempt.trace ? attempt.trace.run(call) : call()));
    for (const hook of this.hooks.afterProcess) {
      try {
        await this.#limiter.waitFor(inside(() => hook(ctx)));
      } catch (error) {
        this.logger.error({ err: error, job: attempt.fields.key }, "Failed to run after process hook");
      }
    }
  }
}

/**
 * Returns null if there are no hooks around jobs. At most `concurrency` `afterProcess` hooks run at a time, each for at
 * most `hookTimeout`.
 */
export const jobHooks = (config: QueueConfig, logger: Logger): JobHooks | null =>
  config.beforeProcess.length + config.aroundProcess.length + config.afterProcess.length > 0
    ? new JobHooks(config, { max: config.concurrency, timeoutMs: config.hookTimeout * 1_000 }, logger)
    : null;
