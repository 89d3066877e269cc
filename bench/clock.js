/** Nanoseconds of the machine's monotonic clock: one clock for all processes. */
export const monotonic = () => Number(process.hrtime.bigint());

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Whether the work was over within that time. */
export async function within(ms, work) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, ms, false);
  });
  const isDone = await Promise.race([work.then(() => true), late]);
  clearTimeout(timer);
  return isDone;
}
