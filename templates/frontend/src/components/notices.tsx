interface NoticesProps {
  /** The reason why the last request to the API failed, or null. */
  outage: string | null;
  workerMissing: boolean;
  onRetry: () => void;
}

/**
 * Says why the list does not change: the API is unreachable, or no worker runs. The status region is always rendered,
 * because screen readers announce only changes inside an existing region.
 */
export function Notices({ outage, workerMissing, onRetry }: NoticesProps) {
  return (
    <div role="status">
      {outage !== null && (
        <div className="notice">
          <p>{outage} The list shows the last known state. The page tries again automatically.</p>
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
