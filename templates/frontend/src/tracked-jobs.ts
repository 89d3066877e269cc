import type { Job, JobStatus } from "./api.js";

/** A job that was enqueued in this browser. */
export interface TrackedJob {
  id: string;
  /** The job as in the API's last response; null until the first response. */
  job: Job | null;
  /** True if the queue no longer stores the job: its time to live is over, or someone deleted it. */
  gone: boolean;
  /** True if the job is from a previous visit, so it was not enqueued since this page was loaded. */
  restored: boolean;
}

export const MAX_TRACKED = 50;

const FINISHED: readonly JobStatus[] = ["complete", "failed", "aborted"];

export function isUnfinished({ job, gone }: TrackedJob): boolean {
  return !gone && (job === null || !FINISHED.includes(job.status));
}

/**
 * Returns the list updated with a response of the API.
 *
 * @param requested the ids in the request
 * @param found the jobs in the response
 */
export function mergeResponse(list: TrackedJob[], requested: string[], found: Job[]): TrackedJob[] {
  const jobsById = new Map(found.map((job) => [job.job_id, job]));
  return list.flatMap((tracked) => {
    if (!requested.includes(tracked.id)) return [tracked];
    const job = jobsById.get(tracked.id);
    if (job !== undefined) return [{ ...tracked, job }];
    // A job from a previous visit that has expired is removed silently. A job that the user has enqueued or seen since
    // the page was loaded stays in the list, marked as gone.
    return tracked.restored && tracked.job === null ? [] : [{ ...tracked, gone: true }];
  });
}
