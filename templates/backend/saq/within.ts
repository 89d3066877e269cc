/** Resolves when `work` has succeeded or failed, or after `ms`, whichever comes first. Never rejects. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((resolve) => {
    // setTimeout fires at once for a time of more than 31 bits.
    timer = setTimeout(resolve, Math.min(ms, 2 ** 31 - 1));
  });
  await Promise.race([work, late]).catch(() => {});
  clearTimeout(timer);
}
