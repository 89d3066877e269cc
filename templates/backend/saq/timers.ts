/** Timers with limits: `setTimeout` fires at once for a time of more than 31 bits. */

/** The longest time of one timer, ms: 24.8 days. */
export const longestTimerMs = 2 ** 31 - 1;

/** Resolves after `ms`, or when the signal fires. */
export const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });

/** Resolves when `work` has succeeded or failed, or after `ms`, whichever comes first. Never rejects. */
export async function withTimeout(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise((resolve) => {
    timer = setTimeout(resolve, Math.min(ms, longestTimerMs));
  });
  await Promise.race([work, timeout]).catch(() => {});
  clearTimeout(timer);
}
