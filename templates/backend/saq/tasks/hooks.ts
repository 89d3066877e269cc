/**
 * Types of the hooks around a worker and its jobs, and of the members that hooks add to ctx. The compiler infers the
 * type of a hook's ctx, and a task that needs `ctx.db` compiles only if a hook adds it.
 */
import type { Context, TaskDefinition, WorkerContext } from "./task.js";

export type OneOrMany<Hook> = Hook | readonly Hook[];

/** Runs before the worker takes jobs. The members of the object that it returns are on every job's ctx. */
export type StartupHook = (ctx: WorkerContext) => unknown;
/**
 * Runs after the last job has ended. It also runs if the start failed, so any member may be missing. After
 * `hookTimeout` the worker no longer waits for it.
 */
export type ShutdownHook<State = unknown> = (ctx: WorkerContext & Readonly<Partial<State>>) => unknown;
/**
 * Runs before the task, within the job's timeout. If it throws, the attempt ends and the task does not run. The members
 * of the object that it returns are on this job's ctx only.
 */
export type BeforeProcessHook<State = unknown> = (ctx: Context<State>) => unknown;
/**
 * Runs around the task, after the `beforeProcess` hooks and within the job's timeout. `next()` calls the next hook of
 * the list, or the task. It returns a promise that ends as the task ends: with the task's result, or with its error.
 *
 * The attempt ends as the task ends, whatever the hook returns, and also if the hook catches the task's error. If the
 * hook itself throws, the attempt fails with that error, also if the task has succeeded. If the hook ends without
 * calling `next`, the attempt fails and the task does not run. A second call of `next` rejects and runs nothing. When
 * the task has ended, the hook must end within `hookTimeout`; after that an error is logged and the attempt ends as the
 * task did.
 *
 * @example
 * const withTenant: AroundProcessHook = (ctx, next) => tenants.run(String(ctx.job.meta.tenant), next);
 */
export type AroundProcessHook<State = unknown> = (
  ctx: Context<State>,
  next: () => Promise<unknown>,
) => unknown;
/**
 * Runs when the end of the attempt is recorded, whether it succeeded or not. `ctx.job` holds the final status, and
 * `ctx.exception` what was thrown. After a snooze the status is `queued`, and `ctx.exception` is undefined. An error
 * that the hook throws is logged. At most `concurrency` of these hooks run at a time, each for at most `hookTimeout`.
 */
export type AfterProcessHook<State = unknown, JobState = unknown> = (
  ctx: Context<State & Partial<JobState>>,
) => unknown;

/** The hooks of a queue's workers as users write them: each is one function, or a list that is called in order. */
export interface HookOptions {
  /** Runs before the worker takes jobs. If it throws, the worker does not start. @defaultValue none */
  startup?: OneOrMany<StartupHook>;
  /** Runs after the last job has ended. @defaultValue none */
  shutdown?: OneOrMany<ShutdownHook>;
  /** Runs before each task, within the job's timeout. If it throws, the attempt fails. @defaultValue none */
  beforeProcess?: OneOrMany<BeforeProcessHook>;
  /**
   * Runs around each task, inside of the `beforeProcess` hooks: `(ctx, next) => ...`. The first hook of a list is the
   * outermost one. @defaultValue none
   */
  aroundProcess?: OneOrMany<AroundProcessHook>;
  /** Runs when the end of an attempt is recorded. @defaultValue none */
  afterProcess?: OneOrMany<AfterProcessHook>;
}

/** The hooks of a queue's workers as lists. */
export interface Hooks {
  readonly startup: readonly StartupHook[];
  readonly shutdown: readonly ShutdownHook[];
  readonly beforeProcess: readonly BeforeProcessHook[];
  readonly aroundProcess: readonly AroundProcessHook[];
  readonly afterProcess: readonly AfterProcessHook[];
}

/**
 * One hook or a list of hooks. The return types of the first three hooks of a list are inferred one by one, so that ctx
 * has the members of all three. Later hooks may return members too, which the compiler does not see.
 */
export type HooksReturning<Ctx, First, Second, Third> =
  | ((ctx: Ctx) => First)
  | readonly [
      ((ctx: Ctx) => First)?,
      ((ctx: Ctx) => Second)?,
      ((ctx: Ctx) => Third)?,
      ...((ctx: Ctx) => unknown)[],
    ];

/**
 * The members that startup hooks add to ctx, from the types that they return. A hook that may return undefined adds no
 * certain member. Without startup hooks there are none; `Present` decides that, because a return type that the compiler
 * has not inferred yet is `never`, which would match.
 */
export type Started<Present, First, Second, Third> = "startup" extends Present
  ? Members<First> & Members<Second> & Members<Third>
  : unknown;
/** The same for `beforeProcess` hooks. */
export type Prepared<Present, First, Second, Third> = "beforeProcess" extends Present
  ? Members<First> & Members<Second> & Members<Third>
  : unknown;
type Members<Result> = Awaited<Result> extends infer Value ? (Value extends object ? Value : unknown) : never;

/** Tasks whose ctx has the members that they need. If one is missing, the compiler names it. */
export type TasksFor<State> = Readonly<
  Record<
    string,
    ((ctx: Context<State>, payload: never) => unknown) | TaskDefinition<never, unknown, Context<State>>
  >
>;
