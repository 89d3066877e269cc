import { summariseTime } from "../job-times.js";
import type { TrackedJob } from "../tracked-jobs.js";
import { JobDetails } from "./job-details.js";
import { StatusBadge } from "./status-badge.js";

export function JobItem({ tracked, now }: { tracked: TrackedJob; now: number }) {
  const { id, job, gone, restored } = tracked;
  const statusSoFar = restored ? "unknown" : "queued";
  return (
    <li id={`job-${id}`} className="card job" tabIndex={-1}>
      <div className="job-line">
        <StatusBadge status={gone ? "gone" : (job?.status ?? statusSoFar)} />
        <span className="job-name">{job?.function ?? id}</span>
        {job !== null && (
          <span className="job-facts">
            {(job.attempts > 1 || job.error !== null) && <span>{attemptsText(job.attempts)}</span>}
            <span>{gone ? "no longer stored by the queue" : summariseTime(job, now)}</span>
          </span>
        )}
      </div>
      {!gone && job?.status === "active" && <JobProgress progress={job.progress} />}
      {job !== null && <JobDetails job={job} />}
    </li>
  );
}

function attemptsText(attempts: number): string {
  return attempts === 1 ? "1 attempt" : `${attempts} attempts`;
}

function JobProgress({ progress }: { progress: number }) {
  // The progress of a task that reports none stays 0. An indeterminate bar fits it better than an empty one.
  const value = progress > 0 ? progress : undefined;
  return (
    <div className="progress">
      <progress aria-label="Progress" max={1} value={value} />
      {value !== undefined && <span>{Math.round(value * 100)} %</span>}
    </div>
  );
}
