import type { Job } from "./api.js";

/** Formats a duration: "840 ms", "3.2 s", "2 min 5 s". */
function formatDuration(ms: number): string {
  const length = Math.max(0, ms);
  if (length < 1_000) return `${Math.round(length)} ms`;
  if (length < 60_000) return `${(length / 1_000).toFixed(1)} s`;
  return `${Math.floor(length / 60_000)} min ${Math.floor((length % 60_000) / 1_000)} s`;
}

export function formatClock(iso: string): string {
  return new Date(iso).toLocaleTimeString(undefined, { hour12: false });
}

/** Returns a short text: how long the job has waited, is running or ran. `now` is in ms since the epoch. */
export function summariseTime(job: Job, now: number): string {
  const queued = time(job.queued_at);
  const due = time(job.scheduled_at) ?? queued;
  const started = time(job.started_at);
  const completed = time(job.completed_at);
  switch (job.status) {
    case "new":
    case "deferred":
    case "queued":
      if (due === null) return "";
      return due > now
        ? `due in ${Math.ceil((due - now) / 1_000)} s`
        : `waiting for ${formatDuration(now - due)}`;
    case "active":
    case "aborting":
      return started === null ? "" : `running for ${formatDuration(now - started)}`;
    case "complete":
    case "failed":
    case "aborted":
      return started === null || completed === null ? "" : `ran for ${formatDuration(completed - started)}`;
  }
}

function time(iso: string | null): number | null {
  return iso === null ? null : Date.parse(iso);
}
