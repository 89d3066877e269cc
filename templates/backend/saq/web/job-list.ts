/** A queue with a page of its jobs, by state. */
import type { JobCounts } from "../broker.js";
import type { Status } from "../job.js";
import type { JobQuery, JobState } from "./filter.js";
import type { WebJob, WebQueue, WebQueueInfo } from "./queue.js";

/** SAQ's info object (P-33) whose `jobs` are those that the query asks for. */
export async function queueWithJobs(
  queue: WebQueue,
  { states, offset, limit }: JobQuery,
): Promise<WebQueueInfo> {
  if (states === null) return queue.info({ jobs: true, offset, limit });
  if (states.includes("queued") === states.includes("scheduled")) {
    return queue.info({ jobs: true, statuses: storedStatuses(states), offset, limit });
  }
  const info = await queue.info();
  const jobs = await jobsByDueTime(queue, states, info.counts, offset, limit);
  return { ...info, jobs: jobs.map((job) => job.toDocument()) };
}

const chunk = 1000;

/**
 * Storage knows one status for both `queued` and `scheduled`, so telling them apart means walking over the waiting
 * jobs. The counts say when no more can follow.
 */
async function jobsByDueTime(
  queue: WebQueue,
  states: readonly JobState[],
  counts: JobCounts,
  offset: number,
  limit: number,
): Promise<WebJob[]> {
  const wanted = new Set(states);
  const statuses = storedStatuses(states);
  const expected = [...wanted].reduce((sum, state) => sum + counts[state], 0);
  const enough = Math.min(offset + limit, expected);
  const found: WebJob[] = [];
  for (let start = 0; found.length < enough; start += chunk) {
    const jobs = await queue.list({ statuses, offset: start, limit: chunk });
    found.push(...jobs.filter((job) => wanted.has(stateOf(job))));
    if (jobs.length < chunk) break;
  }
  return found.slice(offset, offset + limit);
}

function storedStatuses(states: readonly JobState[]): Status[] {
  return [...new Set(states.map((state) => (state === "scheduled" ? "queued" : state)))];
}

function stateOf({ status, scheduled }: WebJob): JobState {
  if (status === "new") return "queued";
  return status === "queued" && scheduled * 1000 > Date.now() ? "scheduled" : status;
}
