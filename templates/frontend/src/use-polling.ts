import { useEffect, useEffectEvent, useState } from "react";

const INTERVAL_MS = 1_000;
const MAX_WAIT_MS = 15_000;

/**
 * Calls `task` immediately, and again one second after each end, while `enabled` is true and the tab is visible. After
 * failures in a row it waits 2, 4, 8 and then 15 seconds. `retryNow` calls `task` without waiting. `outage` is the
 * reason why the last call failed, or null.
 */
export function usePolling(enabled: boolean, task: (signal: AbortSignal) => Promise<void>) {
  const [outage, setOutage] = useState<string | null>(null);
  const [restarts, setRestarts] = useState(0);
  const running = useTabVisible() && enabled;
  const runTask = useEffectEvent(task);

  // biome-ignore lint/correctness/useExhaustiveDependencies: a change of `restarts` restarts the loop
  useEffect(() => {
    if (!running) {
      setOutage(null);
      return;
    }
    const stop = new AbortController();
    let timer: number;
    let failures = 0;

    async function round() {
      let wait = INTERVAL_MS;
      try {
        await runTask(stop.signal);
        failures = 0;
        if (!stop.signal.aborted) setOutage(null);
      } catch (error) {
        if (stop.signal.aborted) return;
        failures += 1;
        wait = Math.min(INTERVAL_MS * 2 ** failures, MAX_WAIT_MS);
        setOutage(error instanceof Error ? error.message : String(error));
      }
      if (!stop.signal.aborted) timer = window.setTimeout(round, wait);
    }

    void round();
    return () => {
      stop.abort();
      window.clearTimeout(timer);
    };
  }, [running, restarts]);

  return { outage, retryNow: () => setRestarts((count) => count + 1) };
}

function useTabVisible(): boolean {
  const [visible, setVisible] = useState(() => document.visibilityState === "visible");
  useEffect(() => {
    const update = () => setVisible(document.visibilityState === "visible");
    document.addEventListener("visibilitychange", update);
    return () => document.removeEventListener("visibilitychange", update);
  }, []);
  return visible;
}
