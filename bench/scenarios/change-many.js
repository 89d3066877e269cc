// Measures a change by filter: how fast failed jobs are retried, how long it locks them, and what it costs a worker.
import { sleep } from "../clock.js";

/** How long the worker runs before it is measured, ms. */
const warmUpMs = 500;

/**
 * Retries a fifth of `rows` failed jobs: first alone, then while a worker drains twice as many due jobs. These are
 * older than the retried ones, so that the worker runs the same jobs as in the same time without the change.
 */
async function changeMany(contender) {
  if (!contender.contestant.changesMany) return null;
  const failed = contender.options.rows / 5;
  return contender.administer(async (admin) => {
    const alone = await withFailed(contender, admin, failed, async (producer) => {
      const end = admin.watchLocks();
      const retried = await producer.call("retryFailed");
      return { ...retried, longest: await end() };
    });
    const beside = await withFailed(contender, admin, failed, (producer) => drainBeside(contender, admin, producer));
    if (alone.changed !== failed || beside.changed !== failed)
      throw new Error(`${failed} jobs had failed, ${alone.changed} and ${beside.changed} were retried`);
    return {
      "retry by filter": failed / alone.seconds,
      "retry by filter, longest lock": alone.longest,
      "retry by filter, beside a drain": failed / beside.seconds,
      "drain beside a retry by filter": beside.during,
      "drain before it": beside.before,
    };
  });
}

async function withFailed(contender, admin, failed, work) {
  await contender.empty(admin);
  await admin.fill("failed", failed);
  await contender.settle(admin);
  const producer = await contender.producer();
  try {
    return await work(producer);
  } finally {
    await producer.stop();
  }
}

/** Returns the worker's jobs per second in the second before the change, and during the change. */
async function drainBeside(contender, admin, producer) {
  const { concurrency, ms } = contender.options;
  await admin.fill("queued", (contender.options.rows / 5) * 2);
  await contender.settle(admin);
  const worker = await contender.worker();
  try {
    await worker.call("work", { concurrency });
    await sleep(warmUpMs);
    const before = await rateDuring(worker, () => sleep(ms));
    let retried;
    const during = await rateDuring(worker, async () => {
      retried = await producer.call("retryFailed");
    });
    return { before, during, ...retried };
  } finally {
    await worker.stop();
  }
}

async function rateDuring(worker, work) {
  const { count } = await worker.call("report");
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1_000;
  return ((await worker.call("report")).count - count) / seconds;
}

const higher = { unit: "jobs/s", better: "higher" };

export const changeManyScenarios = {
  "change-many": {
    what: "retrying a fifth of --rows failed jobs by filter, alone and beside a worker; not part of all",
    isLong: true,
    figures: {
      "retry by filter": higher,
      "retry by filter, longest lock": { unit: "ms", better: "lower" },
      "retry by filter, beside a drain": higher,
      "drain beside a retry by filter": higher,
      "drain before it": higher,
    },
    run: changeMany,
  },
};
