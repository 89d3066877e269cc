/** Nanoseconds of the machine's monotonic clock: one clock for all processes. */
export const monotonic = () => Number(process.hrtime.bigint());

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
