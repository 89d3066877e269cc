interface NoticesProps {
  /** Why the API could not be asked, or null. */
  outage: string | null;
  workerMissing: boolean;
  onRetry: () => void;
}

/** What keeps the list from moving, in plain words. The region is always there, so that screen readers hear of it. */
export function Notices({ outage, workerMissing, onRetry }: NoticesProps) {
  return (
    <div role="status">
      {outage !== null && (
        <div className="notice">
          <p>{outage} This list shows what was last known and tries again by itself.</p>
          <button type="button" onClick={onRetry}>
            Try now
          </button>
        </div>
      )}
      {outage === null && workerMissing && (
        <div className="notice">
          <p>
            No worker is running, so jobs wait. Start one: <code>make dev-worker</code>
          </p>
        </div>
      )}
    </div>
  );
}
