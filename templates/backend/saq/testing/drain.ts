/** Runs jobs in the test's own process until nothing is left to run. */
import type { JobFields, Status } from "../core/job.js";
import type { Logger } from "../logger.js";
import type { Queue } from "../queue/queue.js";
import type { JobContext } from "../tasks/task.js";
import { Worker } from "../worker/index.js";

/** A queue with any tasks, or what `createSaq` returned. */
type Drained = Pick<Queue, "name" | "broker"> | { taskQueues: { all(): Queue[] } };

/** Options of `drain`. */
export interface DrainOptions {
  /**
   * Also runs the jobs that are due by this time, in the order of their times. A job that is retried or snoozed again
   * and again runs as often as it would by that time. Without it, jobs of a later second stay where they are.
   * @defaultValue none
   */
  at?: Date;
  /**
   * Timeout, s. Shorter than a test runner's own limit, because the error of this one lists the jobs that are left.
   * @defaultValue 4
   */
  timeout?: number;
  /** Return failed runs instead of throwing. @defaultValue false */
  allowFailures?: boolean;
  /** Logger of the workers. @defaultValue none */
  logger?: Logger;
}

/** One run of one job. */
export interface Run {
  /** Id of the job. */
  id: string;
  /** Name of the task. */
  task: string;
  /** Status after this run. `queued`: the job waits for its next attempt. If it was snoozed, `error` is null. */
  status: Status;
  payload: Record<string, unknown> | null;
  /** The result as it is stored; null unless the job is complete. */
  result: unknown;
  /** The error as it is stored; null if there is none. */
  error: string | null;
  /** Number of attempts so far, this one included unless it was snoozed. */
  attempts: number;
}

interface RecordedRun extends Run {
  thrown: unknown;
}

const pollMs = 15;
/**
 * More runs than a test needs. Without this limit, jobs that enqueue each other for ever would use the whole timeout.
 */
const maxRuns = 10_000;
const maxListed = 10;

/**
 * Runs all due jobs, and the jobs that they enqueue, with a real worker per queue, until no job is due or running.
 * Returns the runs in the order of their ends. Jobs that are due later wait, also the next attempt of a job with a
 * `retryDelay` and a job that was snoozed, unless they are due by `at`. Scheduled tasks (cron) follow the real clock.
 *
 * @param what a queue, or what `createSaq` returned: then all its queues
 * @throws Error if a job has failed for good (its `cause` is what the job threw), or if jobs are left after `timeout`
 *   or after 10,000 runs
 * @throws the errors of `Worker.start`; SaqError list_too_slow, as `queue.list` does
 * @example
 * await queue.enqueue("sendMail", { to: "ann@example.com" });
 * const [run] = await drain(queue);
 */
export async function drain(what: Drained, options: DrainOptions = {}): Promise<Run[]> {
  const { timeout = 4, allowFailures = false, logger } = options;
  const queues = "taskQueues" in what ? what.taskQueues.all() : [what as Queue];
  const runs: RecordedRun[] = [];
  const recordedQueues = queues.map((queue) => withRecorder(queue, (run) => runs.push(run)));
  const workers = recordedQueues.map((queue) => new Worker(queue, { ...(logger && { logger }) }));
  const deadline = performance.now() + timeout * 1_000;
  const skipped = new Map(queues.map((queue) => [queue, new Map<string, number>()]));
  const makeJobsDue = async (): Promise<number> => {
    let count = 0;
    if (options.at)
      for (const [queue, skippedSeconds] of skipped)
        count += await makeDue(queue, options.at, skippedSeconds);
    return count;
  };
  try {
    await Promise.all(queues.map((queue) => queue.connect()));
    // Before any job runs, so that all jobs run in the order of their times.
    await makeJobsDue();
    await Promise.all(workers.map((worker) => worker.start()));
    for (;;) {
      const left = await stillToRun(queues);
      // In this order: a job that ran a moment ago may wait for its next attempt now.
      if (left.length === 0 && (await makeJobsDue()) === 0) break;
      if (performance.now() > deadline || runs.length > maxRuns) throw unfinished(left, runs, timeout);
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  } finally {
    await Promise.all(workers.map((worker) => worker.stop({ grace: 0 })));
  }
  const failed = runs.filter(({ status }) => status === "failed");
  if (failed.length > 0 && !allowFailures) throw failure(failed, runs);
  return runs.map(({ thrown: _, ...run }) => run);
}

/**
 * Returns the same queue with a hook of ours after its own, and without a burst, which may end before the queue is
 * empty.
 */
function withRecorder(queue: Queue, record: (run: RecordedRun) => void): Queue {
  const recordRun = ({ job, exception }: JobContext) => {
    const { id, function: task, status, kwargs: payload, result, error, attempts } = job;
    record({ id, task, status, payload, result, error, attempts, thrown: exception });
  };
  const afterProcess = [...queue.config.afterProcess, recordRun];
  const config = { ...queue.config, afterProcess, burst: false, maxBurstJobs: null };
  return new Proxy(queue, {
    get: (target, name) => {
      if (name === "config") return config;
      const member: unknown = Reflect.get(target, name, target);
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
}

/**
 * Moves the due times of jobs that are due by `at` into the past and keeps their order. Returns the number of these
 * jobs. The stored documents stay as they are. `skipped` has the seconds by which each job is ahead of the clock,
 * because its previous waits were skipped; this call updates it.
 */
async function makeDue({ broker }: Queue, at: Date, skipped: Map<string, number>): Promise<number> {
  const last = Math.floor(at.getTime() / 1_000);
  const now = Math.floor(broker.now() / 1_000);
  const notDue: { key: string; scheduled: number; time: number }[] = [];
  for (let after: string | null = ""; after !== null; ) {
    const { jobs, next }: Awaited<ReturnType<typeof broker.listAfter>> = await broker.listAfter({
      statuses: ["queued"],
      after,
      limit: 500,
    });
    for (const { key, scheduled } of jobs) {
      const time = scheduled + (skipped.get(key) ?? 0);
      // Not the next tick of a scheduled task: its worker would move it back to its own time.
      if (scheduled > now && time <= last && !isTick(key)) notDue.push({ key, scheduled, time });
    }
    after = next;
  }
  for (const { key, scheduled, time } of notDue.sort((a, b) => a.time - b.time)) {
    skipped.set(key, time - now);
    await broker.updateLocked(key, (row) => {
      const isWaiting = row.status === "queued" && row.scheduled === scheduled;
      const due = now - Math.min(last - time, now);
      return {
        change: isWaiting ? { status: "queued", patch: null, removed: [], scheduled: due } : null,
        answer: null,
      };
    });
  }
  return notDue.length;
}

const isTick = (key: string): boolean => key.startsWith("cron:");

/**
 * Returns the jobs that are due or running. It leaves out due jobs that no worker of the queue would take, because
 * their priority is out of its range.
 */
async function stillToRun(queues: readonly Queue[]): Promise<JobFields[]> {
  const listed = await Promise.all(
    queues.map(async (queue) => {
      const [lowest, highest] = queue.config.priorities;
      const jobs = await queue.list({ statuses: ["queued", "active", "aborting"], due: true, limit: 1_000 });
      return jobs.filter(
        (job) => job.status !== "queued" || (job.priority >= lowest && job.priority <= highest),
      );
    }),
  );
  return listed.flat();
}

function unfinished(left: readonly JobFields[], runs: readonly Run[], timeout: number): Error {
  const listed = left
    .slice(0, maxListed)
    .map((job) => `\n  ${job.function} ${JSON.stringify(job.kwargs)} (${job.key}): ${job.status}`);
  return new Error(
    `drain: jobs are left after ${timeout} s and ${runs.length} runs: ${left.length}${listed.join("")}\n` +
      "Set a longer { timeout }, or pass a { logger } to see what the jobs wait for.",
  );
}

function failure(failed: readonly RecordedRun[], runs: readonly Run[]): Error {
  const listed = failed
    .slice(0, maxListed)
    .map((run) => `\n  ${run.task} ${JSON.stringify(run.payload)} (${run.id}): ${run.error?.split("\n")[0]}`);
  return new Error(
    `drain: ${failed.length} of ${runs.length} runs failed:${listed.join("")}\n` +
      "If the test expects failures: drain(queue, { allowFailures: true }).",
    { cause: failed[0]?.thrown },
  );
}
