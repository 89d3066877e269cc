/** Resolves when the work is done, has failed, or when that time is over, whichever comes first. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((resolve) => {
    // A longer timer would fire at once.
    timer = setTimeout(resolve, Math.min(ms, 2 ** 31 - 1));
  });
  await Promise.race([work, late]).catch(() => {});
  clearTimeout(timer);
}
