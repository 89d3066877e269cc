import { useState } from "react";
import { fetchJobs, fetchWorkerCount } from "./api.js";
import { loadIds, removeIds, storeId } from "./stored-ids.js";
import { isUnfinished, MAX_TRACKED, mergeResponse, type TrackedJob } from "./tracked-jobs.js";
import { usePolling } from "./use-polling.js";

// A live worker starts a job in less time than this, so the hint "No worker is running" does not appear needlessly.
const WORKER_MISSING_AFTER_MS = 3_000;

/** Returns the jobs that were enqueued in this browser, newest first. It polls while any of them is unfinished. */
export function useJobs() {
  const [jobs, setJobs] = useState<TrackedJob[]>(() =>
    loadIds().map((id) => ({ id, job: null, gone: false, restored: true })),
  );
  const [checkedAt, setCheckedAt] = useState(() => Date.now());
  const [workerMissing, setWorkerMissing] = useState(false);

  const { outage, retryNow } = usePolling(jobs.some(isUnfinished), async (signal) => {
    const requested = jobs.filter(isUnfinished).map(({ id }) => id);
    const found = await fetchJobs(requested, signal);
    const now = Date.now();
    const overdue = found.some(
      ({ status, queued_at, scheduled_at }) =>
        status === "queued" && now - dueAt(queued_at, scheduled_at) > WORKER_MISSING_AFTER_MS,
    );
    const missing = overdue && (await fetchWorkerCount(signal)) === 0;
    if (signal.aborted) return;
    const known = new Set(found.map(({ job_id }) => job_id));
    removeIds(requested.filter((id) => !known.has(id)));
    setJobs((list) => mergeResponse(list, requested, found));
    setCheckedAt(now);
    setWorkerMissing(missing);
  });

  function add(id: string) {
    storeId(id);
    setJobs((list) => [{ id, job: null, gone: false, restored: false }, ...list].slice(0, MAX_TRACKED));
    retryNow();
  }

  function clear() {
    removeIds(jobs.map(({ id }) => id));
    setJobs([]);
    setWorkerMissing(false);
  }

  return { jobs, checkedAt, outage, workerMissing, retryNow, add, clear };
}

function dueAt(queuedAt: string | null, scheduledAt: string | null): number {
  const text = scheduledAt ?? queuedAt;
  return text === null ? Number.POSITIVE_INFINITY : Date.parse(text);
}
