/** Calls the `aroundProcess` hooks of a job, the first one outermost, and the task inside of them. */
import type { Hooks } from "../../tasks/hooks.js";
import type { Context } from "../../tasks/task.js";
import { HookTimeoutError } from "./hook-limiter.js";

interface AroundHost {
  /** Returns why the attempt must end; null while it may go on. */
  interruptReason: () => Error | null;
  /** Waits for what a hook has returned, after its task has ended. @throws HookTimeoutError if it takes too long */
  waitFor: (returned: Promise<unknown>) => Promise<void>;
  /** Called when a hook did not end in time after its task had ended. */
  onTimeout: (error: HookTimeoutError) => void;
}

/**
 * Runs the task inside of the hooks. The returned promise ends as the task ends, unless a hook throws.
 *
 * @throws what the task throws, or what a hook throws
 * @throws Error if a hook ends without calling `next`
 */
export function runAroundHooks(
  hooks: Hooks["aroundProcess"],
  ctx: Context,
  task: () => unknown,
  host: AroundHost,
): Promise<unknown> {
  const runFrom = (index: number): Promise<unknown> => {
    const hook = hooks[index];
    // A task that throws at once must reject, so that each hook handles errors in one way.
    if (!hook) return new Promise((resolve) => resolve(task()));
    return runHook(
      (next) => hook(ctx, next),
      () => runFrom(index + 1),
      host,
    );
  };
  return runFrom(0);
}

const ignore = () => {};

async function runHook(
  hook: (next: () => Promise<unknown>) => unknown,
  callInner: () => Promise<unknown>,
  { interruptReason, waitFor, onTimeout }: AroundHost,
): Promise<unknown> {
  let inner: Promise<unknown> | null = null;
  let hasEnded = false;
  let innerEnded: () => void = ignore;
  const untilInnerEnds = new Promise<void>((resolve) => {
    innerEnded = resolve;
  });
  const next = (): Promise<unknown> => {
    const reason = refusal(inner !== null, hasEnded) ?? interruptReason();
    if (reason) return rejected(reason);
    inner = callInner();
    // The handler also keeps a hook that does not await `next()` from causing an unhandled rejection.
    inner.then(innerEnded, innerEnded);
    return inner;
  };
  const hookEnd = new Promise((resolve) => resolve(hook(next)));
  await Promise.race([hookEnd.catch(ignore), untilInnerEnds]);
  const started = inner as Promise<unknown> | null;
  if (!started) {
    hasEnded = true;
    await hookEnd;
    throw new Error(
      "an aroundProcess hook ended without calling next(), so the task did not run. Call next() once and await it; " +
        "to refuse a job, throw an error",
    );
  }
  // The attempt must not end while the task still runs, so a hook that does not await `next()` is made up for here.
  await started.catch(ignore);
  try {
    await waitFor(hookEnd);
  } catch (error) {
    if (!(error instanceof HookTimeoutError)) throw error;
    onTimeout(error);
  }
  return started;
}

function refusal(wasCalled: boolean, hasEnded: boolean): Error | null {
  if (wasCalled)
    return new Error("an aroundProcess hook called next() twice; the task runs only once. Call next() once");
  if (hasEnded)
    return new Error("an aroundProcess hook called next() after it had ended, so the task does not run");
  return null;
}

/** A rejection that is no unhandled one if the hook does not await it: the attempt's end shows the problem anyway. */
function rejected(reason: Error): Promise<never> {
  const promise = Promise.reject(reason);
  promise.catch(ignore);
  return promise;
}
