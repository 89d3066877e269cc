/** Ready-made hooks for `defineQueue`: log lines and timing. None of them logs the payload of a job. */
import type { Context, JobContext, WorkerContext } from "./task.js";

/**
 * `startup` hook: logs that the worker starts, with its id and queue.
 *
 * @example
 * defineQueue({ name: "mail", dsn, tasks: { sendMail }, startup: startupLogger });
 */
export function startupLogger({ log, workerId, queue }: Partial<WorkerContext>): void {
  log?.info({ ...workerFields(workerId, queue), event: "worker_startup" }, "SAQ worker starting");
}

/**
 * `shutdown` hook: logs that the worker ends, with its id and queue.
 *
 * @example
 * defineQueue({ name: "mail", dsn, tasks: { sendMail }, shutdown: shutdownLogger });
 */
export function shutdownLogger({ log, workerId, queue }: Partial<WorkerContext>): void {
  log?.info({ ...workerFields(workerId, queue), event: "worker_shutdown" }, "SAQ worker shutting down");
}

/**
 * `beforeProcess` hook: logs the start of each job at debug level.
 *
 * @example
 * defineQueue({ name: "mail", dsn, tasks: { sendMail }, beforeProcess: beforeProcessLogger });
 */
export function beforeProcessLogger({ log, job }: Partial<JobContext>): void {
  log?.debug({ ...jobFields(job), event: "job_start" }, "Processing job");
}

/**
 * `afterProcess` hook: logs the end of each job at debug level, with its status.
 *
 * @example
 * defineQueue({ name: "mail", dsn, tasks: { sendMail }, afterProcess: afterProcessLogger });
 */
export function afterProcessLogger({ log, job }: Partial<JobContext>): void {
  log?.debug({ ...jobFields(job), status: job?.status ?? "unknown", event: "job_complete" }, "Job completed");
}

/**
 * `beforeProcess` hook: records the time for `timingAfterProcess`, as `ctx.timingStart`, ms by `performance.now()`.
 *
 * @example
 * defineQueue({
 *   ...options,
 *   tasks: { sendMail },
 *   beforeProcess: timingBeforeProcess,
 *   afterProcess: timingAfterProcess,
 * });
 */
export const timingBeforeProcess = () => ({ timingStart: performance.now() });

/**
 * `afterProcess` hook: logs how long the job took, ms, including its settlement. Needs `timingBeforeProcess`.
 *
 * @example
 * defineQueue({
 *   ...options,
 *   tasks: { sendMail },
 *   beforeProcess: timingBeforeProcess,
 *   afterProcess: timingAfterProcess,
 * });
 */
export function timingAfterProcess({
  log,
  job,
  timingStart,
}: Partial<Context<{ timingStart: number }>>): void {
  if (timingStart === undefined) {
    log?.warn(jobFields(job), "timingAfterProcess called without timingBeforeProcess");
    return;
  }
  const ms = performance.now() - timingStart;
  log?.info(
    { ...jobFields(job), duration_ms: Math.round(ms * 100) / 100, event: "job_timing" },
    `Job completed in ${ms.toFixed(2)}ms`,
  );
}

const workerFields = (id: string | undefined, queue: { readonly name?: string } | undefined) => ({
  worker_id: id ?? "unknown",
  queue_name: queue?.name ?? "unknown",
});

const jobFields = (job: { readonly id?: string; readonly function?: string } | undefined) => ({
  job_id: job?.id ?? "unknown",
  function: job?.function ?? "unknown",
});
