/** Ready-made hooks for `defineQueue`: log lines and timing. None of them logs the payload of a job. */
import type { Context, JobContext, WorkerContext } from "./task.js";

/** `startup` hook: logs that the worker starts. */
export function startupLogger({ log, workerId, queue }: Partial<WorkerContext>): void {
  log?.info({ ...worker(workerId, queue), event: "worker_startup" }, "SAQ worker starting");
}

/** `shutdown` hook: logs that the worker ends. */
export function shutdownLogger({ log, workerId, queue }: Partial<WorkerContext>): void {
  log?.info({ ...worker(workerId, queue), event: "worker_shutdown" }, "SAQ worker shutting down");
}

/** `beforeProcess` hook: logs the start of each job at debug level. */
export function beforeProcessLogger({ log, job }: Partial<JobContext>): void {
  log?.debug({ ...known(job), event: "job_start" }, "Processing job");
}

/** `afterProcess` hook: logs the end of each job at debug level, with its status. */
export function afterProcessLogger({ log, job }: Partial<JobContext>): void {
  log?.debug({ ...known(job), status: job?.status ?? "unknown", event: "job_complete" }, "Job completed");
}

/** `beforeProcess` hook: records the time for `timingAfterProcess`. */
export const timingBeforeProcess = () => ({ timingStart: performance.now() });

/** `afterProcess` hook: logs how long the job took, including its settlement. Needs `timingBeforeProcess`. */
export function timingAfterProcess({
  log,
  job,
  timingStart,
}: Partial<Context<{ timingStart: number }>>): void {
  if (timingStart === undefined) {
    log?.warn(known(job), "timingAfterProcess called without timingBeforeProcess");
    return;
  }
  const ms = performance.now() - timingStart;
  log?.info(
    { ...known(job), duration_ms: Math.round(ms * 100) / 100, event: "job_timing" },
    `Job completed in ${ms.toFixed(2)}ms`,
  );
}

const worker = (id: string | undefined, queue: { readonly name?: string } | undefined) => ({
  worker_id: id ?? "unknown",
  queue_name: queue?.name ?? "unknown",
});

const known = (job: { readonly id?: string; readonly function?: string } | undefined) => ({
  job_id: job?.id ?? "unknown",
  function: job?.function ?? "unknown",
});
