/**
 * Hooks around a worker and its jobs, and what they give to tasks (W-8, W-9). Types only: whoever writes a hook gets
 * its context's type without a word, and a task that needs `ctx.db` compiles only where a hook gives it.
 */
import type { Context, TaskDefinition, WorkerContext } from "./task.js";

export type OneOrMany<Hook> = Hook | readonly Hook[];

/** Runs before the worker takes jobs. The members of the object that it answers are on every job's ctx. */
export type StartupHook = (ctx: WorkerContext) => unknown;
/**
 * Runs after the last job has ended; also when start-up failed, so that any member may be missing. After `hookTimeout`
 * the worker goes on without it.
 */
export type ShutdownHook<State = unknown> = (ctx: WorkerContext & Readonly<Partial<State>>) => unknown;
/**
 * Runs before the task, under its timeout. What it throws ends the attempt, and the task does not run. The members of
 * the object that it answers are on this job's ctx only.
 */
export type BeforeProcessHook<State = unknown> = (ctx: Context<State>) => unknown;
/**
 * Runs when the outcome is recorded, whatever it is: `ctx.job` holds the final status, `ctx.exception` what was thrown.
 * What it throws is logged. At most `concurrency` of them run at a time, each for `hookTimeout`.
 */
export type AfterProcessHook<State = unknown, JobState = unknown> = (
  ctx: Context<State & Partial<JobState>>,
) => unknown;

/** The hooks of a queue's workers, as they are written: each one function or a list, called in its order. */
export interface HookOptions {
  startup?: OneOrMany<StartupHook>;
  shutdown?: OneOrMany<ShutdownHook>;
  beforeProcess?: OneOrMany<BeforeProcessHook>;
  afterProcess?: OneOrMany<AfterProcessHook>;
}

/** The hooks of a queue's workers, as they are run. */
export interface Hooks {
  readonly startup: readonly StartupHook[];
  readonly shutdown: readonly ShutdownHook[];
  readonly beforeProcess: readonly BeforeProcessHook[];
  readonly afterProcess: readonly AfterProcessHook[];
}

/**
 * One hook or a list of them. What the first three of a list answer is told apart, so that their members come together
 * on ctx; later ones may answer too, unseen by the compiler.
 */
export type Answering<Ctx, First, Second, Third> =
  | ((ctx: Ctx) => First)
  | readonly [
      ((ctx: Ctx) => First)?,
      ((ctx: Ctx) => Second)?,
      ((ctx: Ctx) => Third)?,
      ...((ctx: Ctx) => unknown)[],
    ];

/**
 * What start-up hooks put on ctx, by their answers: nothing certain where one may answer undefined, and nothing at all
 * where there are none. (Not told by the answer alone: until the compiler has come to it, it is `never`, which fits.)
 */
export type Started<Present, First, Second, Third> = "startup" extends Present
  ? Members<First> & Members<Second> & Members<Third>
  : unknown;
/** The same for the hooks before a task. */
export type Prepared<Present, First, Second, Third> = "beforeProcess" extends Present
  ? Members<First> & Members<Second> & Members<Third>
  : unknown;
type Members<Answer> = Awaited<Answer> extends infer Value ? (Value extends object ? Value : unknown) : never;

/** Tasks that find on ctx what they need. Where one does not, the compiler names the member that no hook gives. */
export type TasksFor<State> = Readonly<
  Record<
    string,
    ((ctx: Context<State>, payload: never) => unknown) | TaskDefinition<never, unknown, Context<State>>
  >
>;
