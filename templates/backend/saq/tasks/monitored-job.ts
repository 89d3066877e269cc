/**
 * Sends heartbeats while a task runs. For tasks with a `heartbeat`, so that a worker that hangs can be distinguished
 * from a task that takes long.
 */
import { ConfigError } from "../errors.js";
import { withTimeout } from "../timers.js";
import type { Context, JobContext } from "./task.js";

/** Options of `monitoredJob`. */
export interface MonitorOptions {
  /**
   * Seconds between two heartbeats.
   * @defaultValue a third of the job's `heartbeat`, at most 5; 5 if the job has none
   */
  interval?: number;
}

/** Wraps a task: a plain function, or the `run` of `task({ run })`. */
type Monitor = <Ctx = Context, Payload = undefined, Result = unknown>(
  run: (ctx: Ctx, payload: Payload) => Result,
) => (ctx: Ctx, payload: Payload) => Promise<Awaited<Result>>;

const defaultInterval = 5;
/** How long the end of a task waits for a heartbeat in flight. */
const finalHeartbeatMs = 1_000;

/**
 * Wraps a task so that its job sends a heartbeat every `interval` seconds while it runs: `monitoredJob(run)`,
 * `monitoredJob(run, { interval })` or `monitoredJob({ interval })(run)`. A heartbeat that fails is logged, and the
 * next one is sent as usual. No heartbeat is sent after the end of the task. Returns the wrapped task.
 *
 * @throws ConfigError (config) if `interval` is not positive
 * @example
 * const load = async ({ signal }: Context, { url }: { url: string }) => (await fetch(url, { signal })).text();
 * export const download = task({ heartbeat: 30, timeout: 3600, run: monitoredJob(load) });
 */
export function monitoredJob<Ctx = Context, Payload = undefined, Result = unknown>(
  run: (ctx: Ctx, payload: Payload) => Result,
  options?: MonitorOptions,
): (ctx: Ctx, payload: Payload) => Promise<Awaited<Result>>;
/** The second form: returns a function that wraps a task. */
export function monitoredJob(options?: MonitorOptions): Monitor;
export function monitoredJob(
  runOrOptions: ((ctx: never, payload: never) => unknown) | MonitorOptions = {},
  options: MonitorOptions = {},
): unknown {
  const { interval } = typeof runOrOptions === "function" ? options : runOrOptions;
  if (interval !== undefined && !(interval > 0)) {
    throw new ConfigError(`Heartbeat interval must be positive, got ${String(interval)}`);
  }
  const wrap = (run: (ctx: never, payload: never) => unknown) => {
    const monitored = async (ctx: never, payload: never) => {
      const stop = startHeartbeats(ctx as Partial<JobContext>, interval);
      try {
        return await run(ctx, payload);
      } finally {
        await stop();
      }
    };
    return Object.defineProperty(monitored, "name", { value: run.name });
  };
  return typeof runOrOptions === "function" ? wrap(runOrOptions) : wrap;
}

/** Returns the seconds between two heartbeats of a job. `heartbeat`: its maximum silence, s; 0 = no limit. */
const intervalFor = (heartbeat: number): number =>
  heartbeat > 0 ? Math.min(defaultInterval, heartbeat / 3) : defaultInterval;

/**
 * Sends heartbeats until the returned function is called, which waits for a heartbeat in flight. The ctx of a test may
 * lack the job or the log.
 */
function startHeartbeats(
  { job, log }: Partial<JobContext>,
  chosenInterval: number | undefined,
): () => Promise<void> {
  if (!job) {
    log?.debug({}, "No job in context, heartbeat monitoring disabled");
    return async () => {};
  }
  const heartbeat = job.heartbeat || 0;
  const interval = chosenInterval ?? intervalFor(heartbeat);
  const id = job.id ?? "unknown";
  if (heartbeat > 0 && interval >= heartbeat) {
    log?.warn(
      { event: "heartbeat_interval", interval, heartbeat },
      `Heartbeat interval of job ${id} is ${interval} s, but its heartbeat is ${heartbeat} s: the job counts as ` +
        "stuck between two heartbeats; leave the interval out, or set it to a third of the heartbeat",
    );
  }
  log?.info(
    { event: "heartbeat_started", interval },
    `Heartbeat monitoring started for job ${id} (interval: ${interval.toFixed(1)}s)`,
  );
  let sending: Promise<void> | null = null;
  const sendHeartbeat = async () => {
    try {
      await job.update({});
      log?.debug({ event: "heartbeat_sent" }, `Heartbeat sent for job ${id}`);
    } catch (error) {
      log?.warn({ event: "heartbeat_failed", err: error }, `Heartbeat of job ${id} failed`);
    } finally {
      sending = null;
    }
  };
  // While a heartbeat takes longer than the interval, no other one is sent.
  const timer = setInterval(() => {
    sending ??= sendHeartbeat();
  }, interval * 1_000);
  return async () => {
    clearInterval(timer);
    // While the database is unreachable a heartbeat takes long. A late one changes nothing once the job has ended.
    if (sending) await withTimeout(finalHeartbeatMs, sending);
    log?.debug({ event: "heartbeat_stopped" }, `Heartbeat monitoring stopped for job ${id}`);
  };
}
