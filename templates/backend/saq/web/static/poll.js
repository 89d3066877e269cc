// Repeats an asynchronous function while the browser tab is visible.

const intervalMs = 2000;

/**
 * Polls with `work`. `now` runs it immediately; it then runs again two seconds after each end. A hidden tab does not
 * poll, so that a forgotten tab costs the database nothing. `stop` ends the polling.
 *
 * @param {(signal: AbortSignal) => Promise<void>} work must not throw
 * @returns {{ now: () => Promise<void>, stop: () => void }}
 */
export function poll(work) {
  const stopped = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @type {AbortController | null} */
  let current = null;

  async function now() {
    clearTimeout(timer);
    // A run that is still in progress started too early to see the change that this call is for.
    current?.abort();
    const run = new AbortController();
    current = run;
    await work(AbortSignal.any([stopped.signal, run.signal]));
    if (current !== run) return;
    current = null;
    if (!stopped.signal.aborted && !document.hidden) timer = setTimeout(now, intervalMs);
  }

  document.addEventListener(
    "visibilitychange",
    () => {
      if (document.hidden) clearTimeout(timer);
      else void now();
    },
    { signal: stopped.signal },
  );
  return {
    now,
    stop() {
      clearTimeout(timer);
      stopped.abort();
    },
  };
}
