/**
 * A task that gives its own signs of life: for tasks with a `heartbeat`, so that a worker which hangs is told from one
 * that works for long (S-30 to S-33).
 */
import { ConfigError } from "../errors.js";
import { within } from "../within.js";
import type { Context, JobContext } from "./task.js";

export interface MonitorOptions {
  /** Seconds between two signs of life. @defaultValue a third of the job's heartbeat, 5 at most; 5 without one */
  interval?: number;
}

/** Wraps a task, in `task({ run })` or as it stands. */
type Monitor = <Ctx = Context, Payload = undefined, Result = unknown>(
  run: (ctx: Ctx, payload: Payload) => Result,
) => (ctx: Ctx, payload: Payload) => Promise<Awaited<Result>>;

const usualInterval = 5;
/** How long the end of a task waits for the beat under way. */
const lastBeatMs = 1_000;

/**
 * While the task runs, its job is touched every `interval` seconds: `monitoredJob(run)`, `monitoredJob(run, { interval })`
 * or `monitoredJob({ interval })(run)`. A beat that fails is logged, and the next one comes; none follows the
 * end of the task.
 *
 * @throws ConfigError when `interval` is not positive
 */
export function monitoredJob<Ctx = Context, Payload = undefined, Result = unknown>(
  run: (ctx: Ctx, payload: Payload) => Result,
  options?: MonitorOptions,
): (ctx: Ctx, payload: Payload) => Promise<Awaited<Result>>;
export function monitoredJob(options?: MonitorOptions): Monitor;
export function monitoredJob(
  given: ((ctx: never, payload: never) => unknown) | MonitorOptions = {},
  options: MonitorOptions = {},
): unknown {
  const { interval } = typeof given === "function" ? options : given;
  if (interval !== undefined && !(interval > 0)) {
    throw new ConfigError(`Heartbeat interval must be positive, got ${String(interval)}`);
  }
  const wrap = (run: (ctx: never, payload: never) => unknown) => {
    const monitored = async (ctx: never, payload: never) => {
      const stop = beat(ctx as Partial<JobContext>, interval);
      try {
        return await run(ctx, payload);
      } finally {
        await stop();
      }
    };
    return Object.defineProperty(monitored, "name", { value: run.name });
  };
  return typeof given === "function" ? wrap(given) : wrap;
}

/** Seconds between two signs of life of a job whose heartbeat is so many seconds; 0 = it has none (D-51). */
const intervalFor = (heartbeat: number): number =>
  heartbeat > 0 ? Math.min(usualInterval, heartbeat / 3) : usualInterval;

/** Beats until it is stopped; a beat under way is waited for then. A context of a test may lack the job or the log. */
function beat({ job, log }: Partial<JobContext>, given: number | undefined): () => Promise<void> {
  if (!job) {
    log?.debug({}, "No job in context, heartbeat monitoring disabled");
    return async () => {};
  }
  const heartbeat = job.heartbeat || 0;
  const interval = given ?? intervalFor(heartbeat);
  const id = job.id ?? "unknown";
  if (heartbeat > 0 && interval >= heartbeat) {
    log?.warn(
      { event: "heartbeat_interval", interval, heartbeat },
      `Heartbeat interval of job ${id} is ${interval} s, but its heartbeat is ${heartbeat} s: it counts as stuck between two beats; leave the interval out, or make it a third of the heartbeat`,
    );
  }
  log?.info(
    { event: "heartbeat_started", interval },
    `Heartbeat monitoring started for job ${id} (interval: ${interval.toFixed(1)}s)`,
  );
  let beating: Promise<void> | null = null;
  const once = async () => {
    try {
      await job.update({});
      log?.debug({ event: "heartbeat_sent" }, `Heartbeat sent for job ${id}`);
    } catch (error) {
      log?.warn({ event: "heartbeat_failed", err: error }, `Heartbeat of job ${id} failed`);
    } finally {
      beating = null;
    }
  };
  // A beat that takes longer than the interval is not overtaken by the next one.
  const timer = setInterval(() => {
    beating ??= once();
  }, interval * 1_000);
  return async () => {
    clearInterval(timer);
    // While the database is away a beat takes long; once the job has ended, a late one changes nothing.
    if (beating) await within(lastBeatMs, beating);
    log?.debug({ event: "heartbeat_stopped" }, `Heartbeat monitoring stopped for job ${id}`);
  };
}
