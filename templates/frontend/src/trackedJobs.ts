import type { Job, JobStatus } from "./api.js";

/** A job enqueued from this browser. */
export interface TrackedJob {
  id: string;
  /** What the API last said; null until its first answer. */
  job: Job | null;
  /** The queue no longer stores it: its time to live is over, or someone deleted it. */
  gone: boolean;
  /** Known from an earlier visit, not enqueued since this page was loaded. */
  recalled: boolean;
}

export const MAX_TRACKED = 50;

const FINISHED: readonly JobStatus[] = ["complete", "failed", "aborted"];

export function isUnfinished({ job, gone }: TrackedJob): boolean {
  return !gone && (job === null || !FINISHED.includes(job.status));
}

/** The list after the API was asked for `asked` and answered `found`. */
export function mergeAnswer(list: TrackedJob[], asked: string[], found: Job[]): TrackedJob[] {
  const answers = new Map(found.map((job) => [job.job_id, job]));
  return list.flatMap((tracked) => {
    if (!asked.includes(tracked.id)) return [tracked];
    const job = answers.get(tracked.id);
    if (job !== undefined) return [{ ...tracked, job }];
    // Yesterday's expired jobs leave without a word; one that vanishes before the reader's eyes stays, marked.
    return tracked.recalled && tracked.job === null ? [] : [{ ...tracked, gone: true }];
  });
}
