import type { Job } from "../api.js";
import { formatClock } from "../job-times.js";

export function JobDetails({ job }: { job: Job }) {
  return (
    <details className="details">
      <Summary job={job} />
      {job.error !== null && <pre className="error-text">{job.error}</pre>}
      {job.status === "complete" && <pre>{JSON.stringify(job.result, null, 2)}</pre>}
      <dl>
        <Detail className="job-id" term="Job" text={job.job_id} />
        <Detail term="Attempts" text={String(job.attempts)} />
        <Time term="Queued" iso={job.queued_at} />
        <Time term="Due" iso={job.scheduled_at} />
        <Time term="Started" iso={job.started_at} />
        <Time term="Finished" iso={job.completed_at} />
      </dl>
    </details>
  );
}

function Summary({ job }: { job: Job }) {
  const [title, preview] = summarise(job);
  return (
    <summary>
      {title} <span className="preview">{preview}</span>
    </summary>
  );
}

function summarise(job: Job): [title: string, preview: string | undefined] {
  if (job.error !== null) {
    // A job that waits for its next attempt still has the error of the previous attempt.
    return [job.completed_at === null ? "Last error" : "Error", job.error.split("\n")[0]];
  }
  return job.status === "complete" ? ["Result", JSON.stringify(job.result)] : ["Details", undefined];
}

function Time({ term, iso }: { term: string; iso: string | null }) {
  return iso === null ? null : <Detail term={term} text={formatClock(iso)} />;
}

function Detail({ className, term, text }: { className?: string; term: string; text: string }) {
  return (
    <div className={className}>
      <dt>{term}</dt>
      <dd>{text}</dd>
    </div>
  );
}
