/**
 * Starts claimed jobs. A job that cannot start now is given back, or it waits: for a thread, or until no other job runs
 * in this process.
 */
import type { ClaimedJob } from "../core/claim.js";
import { runsAlone } from "../core/job-meta.js";
import type { Logger } from "../logger.js";
import type { Queue } from "../queue/queue.js";
import { type Snooze, snoozeOf } from "../tasks/snooze.js";
import { findTask, isThreadTask } from "../tasks/task.js";
import { type ProcessMessage, processChannel } from "../telemetry/channels.js";
import type { Telemetry } from "../telemetry/telemetry.js";
import type { AloneJobs } from "./alone-jobs.js";
import { Attempt, type AttemptHost } from "./attempt/attempt.js";
import { type ContextServices, contextsWith, TaskContext } from "./attempt/context.js";
import type { JobHooks } from "./attempt/hooks.js";
import { invokeTask } from "./attempt/invoke-task.js";
import type { ClaimedJobs } from "./claimed-jobs.js";
import type { Pauses } from "./pauses.js";
import type { RunningJobs } from "./running-jobs.js";
import type { Refusals } from "./settlement/refusals.js";
import type { Report } from "./settlement/report.js";
import type { Threads } from "./threads/threads.js";

export interface JobStarterOptions {
  queue: Queue;
  logger: Logger;
  report: Report;
  /** The host of each attempt. */
  host: AttemptHost;
  /** The services that each task sees in its ctx. */
  services: ContextServices;
  hooks: JobHooks | null;
  runningJobs: RunningJobs;
  claimedJobs: ClaimedJobs;
  refusals: Refusals;
  pauses: Pick<Pauses, "covers">;
  aloneJobs: AloneJobs;
  /** Null if no task needs a thread. */
  threads: Threads | null;
}

export class JobStarter {
  readonly #options: JobStarterOptions;
  #Context = TaskContext;

  constructor(options: JobStarterOptions) {
    this.#options = options;
  }

  /** Adds the members that startup hooks returned to the ctx of every job that starts from now on. */
  addToContext(state: object): void {
    this.#Context = contextsWith(state);
  }

  /** Returns false if the job was not started. `isAlone`: no other job runs in this process. */
  start(claimed: ClaimedJob, isAlone = false): boolean {
    const { queue, host, report, runningJobs, refusals, pauses, aloneJobs, threads, services, hooks } =
      this.#options;
    let hasInvalidNumber = false;
    const fields = this.#options.claimedJobs.decode(claimed, () => {
      hasInvalidNumber = true;
    });
    if (!fields) return false;
    const attempt = new Attempt(host, claimed, fields);
    const previous = runningJobs.attempts.get(claimed.key);
    previous?.interrupt("lost", "taken over by another worker");
    if (previous || refusals.isOverdue(claimed.key)) {
      refusals.refuseOverdue(attempt);
      return false;
    }
    if (pauses.covers(fields)) {
      refusals.refusePaused(attempt);
      return false;
    }
    const { tasks, unknownTask, lostLimit } = queue.config;
    if (unknownTask === "requeue" && !findTask(tasks, fields.function)) {
      refusals.refuseUnknown(attempt);
      return false;
    }
    const wasHeldByDeadWorker = fields.meta.lost !== undefined;
    if (wasHeldByDeadWorker && !isAlone && runsAlone(fields.meta, lostLimit)) {
      report.waitsAlone(claimed.key);
      aloneJobs.wait(claimed);
      return false;
    }
    if (threads && isThreadTask(findTask(tasks, fields.function)) && !threads.admit(claimed)) return false;
    if (hasInvalidNumber) this.#warnOfInvalidNumber(claimed.key);
    runningJobs.add(attempt, isAlone);
    report.started(attempt);
    const ctx = new this.#Context(services, attempt);
    const call = () => invokeTask(queue.config, threads, attempt, ctx);
    const callWithHooks = hooks ? () => hooks.run(attempt, ctx, call) : call;
    const published = processChannel.hasSubscribers ? publish(ctx, callWithHooks) : callWithHooks;
    const { current } = queue.telemetry;
    const run = current ? () => this.#runInSpan(current, attempt, published) : published;
    attempt.run(wasHeldByDeadWorker ? () => this.#storeStartAndRun(attempt, run) : run);
    return true;
  }

  #runInSpan(telemetry: Telemetry, attempt: Attempt, run: () => unknown): unknown {
    attempt.trace = telemetry.startAttempt(attempt.fields, this.#options.services.workerId);
    return attempt.trace.run(run);
  }

  /**
   * Stores that the job has started, then runs it. A previous worker died while it held this job. If this worker dies
   * too, storage must show that it had started the job.
   */
  async #storeStartAndRun(attempt: Attempt, run: () => unknown): Promise<unknown> {
    await attempt.update({}).catch((error: unknown) => {
      this.#options.logger.debug(
        { err: error, job: attempt.fields.key },
        "could not store that a job has started",
      );
    });
    if (attempt.interruptReason) throw attempt.interruptReason;
    return run();
  }

  #warnOfInvalidNumber(key: string): void {
    this.#options.logger.warn(
      { job: key },
      "the stored document contains NaN or Infinity, which are not valid JSON: the task reads null instead; " +
        "the stored values do not change",
    );
  }
}

/** Returns the run of a job, published to the subscribers of the channel `saq:process`. A snooze is no error there. */
function publish({ queue, workerId, job }: TaskContext, run: () => unknown): () => unknown {
  const message: ProcessMessage = { queue: queue.name, workerId, job };
  return async () => {
    let snooze = null as Snooze | null;
    const runUntilSnoozed = async () => {
      try {
        return await run();
      } catch (error) {
        snooze = snoozeOf(error);
        if (!snooze) throw error;
      }
    };
    const result = await processChannel.tracePromise(runUntilSnoozed, message);
    if (snooze) throw snooze;
    return result;
  };
}
