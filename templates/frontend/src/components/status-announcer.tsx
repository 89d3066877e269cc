import { useEffect, useRef, useState } from "react";
import type { TrackedJob } from "../tracked-jobs.js";

/** Makes screen readers announce which jobs have changed their status. The focus does not move. */
export function StatusAnnouncer({ jobs }: { jobs: TrackedJob[] }) {
  const known = useRef(new Map<string, string>());
  const [announcement, setAnnouncement] = useState({ number: 0, text: "" });

  useEffect(() => {
    const statuses = new Map<string, string>();
    const changes: string[] = [];
    for (const { id, job } of jobs) {
      if (job === null) continue;
      statuses.set(id, job.status);
      const before = known.current.get(id);
      if (before !== undefined && before !== job.status) changes.push(`${job.function}: ${job.status}`);
    }
    known.current = statuses;
    if (changes.length > 0)
      setAnnouncement(({ number }) => ({ number: number + 1, text: changes.join(", ") }));
  }, [jobs]);

  return (
    <div role="status" className="visually-hidden">
      {/* A new key makes a new node, so that two equal messages in a row are both announced. */}
      <span key={announcement.number}>{announcement.text}</span>
    </div>
  );
}
