// Repeats a piece of work while somebody looks.

const intervalMs = 2000;

/**
 * Runs `work` at once and again two seconds after each end, but only while the tab is visible: a forgotten tab asks
 * the database nothing (U-5).
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
    // What is still under way began before whatever this call wants to see.
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
