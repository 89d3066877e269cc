import type { JobStatus } from "../api.js";

/** "unknown": the API has not answered yet. "gone": the queue no longer stores the job. */
export function StatusBadge({ status }: { status: JobStatus | "unknown" | "gone" }) {
  return <span className={`badge badge-${status}`}>{status}</span>;
}
