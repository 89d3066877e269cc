import type { JobStatus } from "../api.js";

/** Shows a job's status. "unknown": the API has not responded yet. "gone": the queue no longer stores the job. */
export function StatusBadge({ status }: { status: JobStatus | "unknown" | "gone" }) {
  return <span className={`badge badge-${status}`}>{status}</span>;
}
