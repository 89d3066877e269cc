import type { TrackedJob } from "../tracked-jobs.js";
import { JobItem } from "./job-item.js";

interface JobListProps {
  jobs: TrackedJob[];
  /** Time of the API's last response, in ms since the epoch. */
  now: number;
}

export function JobList({ jobs, now }: JobListProps) {
  if (jobs.length === 0) {
    return (
      <p className="empty">
        No jobs yet. Enqueue one and watch the worker run it. The tasks are in{" "}
        <code>backend/app/queue/tasks.ts</code>.
      </p>
    );
  }
  return (
    <ul className="job-list">
      {jobs.map((tracked) => (
        <JobItem key={tracked.id} tracked={tracked} now={now} />
      ))}
    </ul>
  );
}
