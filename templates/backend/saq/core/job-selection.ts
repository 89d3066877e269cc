/** Which jobs a list, or a change by filter, is about. */
import type { JobFields, Status } from "./job.js";
import type { StoredJob } from "./stored-job.js";
import { read } from "./stored-job.js";

/** `queued` jobs are due and `scheduled` jobs are not due yet. Both are stored with the status `queued`. */
export const jobStates = [
  "queued",
  "scheduled",
  "active",
  "aborting",
  "complete",
  "failed",
  "aborted",
] as const;
export type JobState = (typeof jobStates)[number];

/** Which jobs. All conditions must be true; one that is left out is true for each job. */
export interface JobSelection {
  /** Only jobs with one of these statuses. */
  statuses: readonly Status[];
  /** Restricts queued jobs: true = only jobs that are due, false = only jobs that are not due yet. If left out: all. */
  due?: boolean | undefined;
  /** Only jobs of the task with this name. */
  task?: string | undefined;
  /** Only jobs whose key begins with this text. */
  keyPrefix?: string | undefined;
  /** Only jobs whose error contains this text. Upper and lower case differ. */
  error?: string | undefined;
  /** Only jobs that were enqueued at this time or later: a Date or epoch ms. */
  enqueuedAfter?: Date | number | undefined;
  /** Only jobs that were enqueued before this time: a Date or epoch ms. */
  enqueuedBefore?: Date | number | undefined;
}

/** The statuses of these states, and whether queued jobs must be due. */
export function selectionOfStates(states: readonly JobState[]): Pick<JobSelection, "statuses" | "due"> {
  const due = states.includes("queued");
  return {
    statuses: [...new Set(states.map((state) => (state === "scheduled" ? "queued" : state)))],
    ...(due !== states.includes("scheduled") && { due }),
  };
}

/** Returns the state of a job that was read from storage. `nowMs` is the database's clock, epoch ms. */
export const stateOf = ({ status, scheduled }: JobFields, nowMs: number): JobState =>
  status === "new" ? "queued" : status === "queued" && scheduled > nowMs / 1_000 ? "scheduled" : status;

/** True if storage cannot tell by status and due time alone which jobs are selected. */
export const needsLook = ({
  task,
  keyPrefix,
  error,
  enqueuedAfter,
  enqueuedBefore,
}: Partial<JobSelection>): boolean =>
  [task, keyPrefix, error, enqueuedAfter, enqueuedBefore].some((condition) => condition !== undefined);

/**
 * True if the job is selected. `nowMs` is the database's clock, epoch ms. `job` is what the row's document contains,
 * null if it is not readable: such a job has no task, no error and no time.
 */
export function isSelected(
  row: StoredJob,
  selection: JobSelection,
  nowMs: number,
  job: JobFields | null = read(row),
): boolean {
  const { statuses, due, task, keyPrefix, error, enqueuedAfter, enqueuedBefore } = selection;
  if (!statuses.includes(row.status)) return false;
  if (due !== undefined && row.status === "queued" && row.scheduled <= nowMs / 1_000 !== due) return false;
  if (keyPrefix !== undefined && !row.key.startsWith(keyPrefix)) return false;
  if (task !== undefined && job?.function !== task) return false;
  if (error !== undefined && !job?.error?.includes(error)) return false;
  if (enqueuedAfter !== undefined && !(job && job.queued >= Number(enqueuedAfter))) return false;
  return enqueuedBefore === undefined || Boolean(job && job.queued < Number(enqueuedBefore));
}
