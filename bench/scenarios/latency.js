// How long one job takes: until it starts, and until its result is back.
import { sleep } from "../clock.js";
import { quantile } from "../statistics.js";

const ms = { unit: "ms", better: "lower" };
const everyMs = 20;
const warmUp = 25;
const settleMs = 1_000;
/** Whoever needs a second for a round trip is measured by fewer of them. */
const longestMs = { warmUp: 2_000, measure: 15_000 };

/** From the call of enqueue in one process to the start of the handler in another, one job at a time. */
async function pickup(contender) {
  await contender.fresh();
  const count = contender.options.samples + warmUp;
  const worker = await contender.worker();
  const producer = await contender.producer();
  try {
    const { concurrency } = contender.options;
    const done = worker.finished(`${contender.name} did not pick up ${count} jobs`);
    await worker.call("work", { concurrency, expected: count, trace: true });
    await sleep(settleMs);
    const began = await producer.call("enqueuePaced", { count, everyMs });
    await done;
    const { starts } = await worker.call("report");
    const latencies = starts.filter(([i]) => i >= warmUp).map(([i, at]) => (at - began[i]) / 1e6);
    return {
      "pickup p50": quantile(latencies, 0.5),
      "pickup p95": quantile(latencies, 0.95),
      "pickup p99": quantile(latencies, 0.99),
    };
  } finally {
    await producer.stop();
    await worker.stop();
  }
}

/** Enqueue and wait for the result: one at a time, and 50 at once. */
async function roundTrip(contender) {
  await contender.fresh();
  const producer = await contender.producer();
  try {
    if (!(await producer.call("hasRoundTrip"))) return null;
    const worker = await contender.worker();
    try {
      const { concurrency, samples, ms: length } = contender.options;
      await worker.call("work", { concurrency, expected: Number.POSITIVE_INFINITY });
      await sleep(settleMs);
      await producer.call("roundTrips", { count: warmUp, ms: longestMs.warmUp });
      const alone = await producer.call("roundTrips", { count: samples, ms: longestMs.measure });
      const { rate } = await producer.call("roundTripLoop", { inFlight: 50, ms: length });
      return {
        "round trip p50": quantile(alone, 0.5),
        "round trip p95": quantile(alone, 0.95),
        "round trips, 50 in flight": rate,
      };
    } finally {
      await worker.stop();
    }
  } finally {
    await producer.stop();
  }
}

export const latencyScenarios = {
  pickup: {
    what: "ms from the call of enqueue to the start of the handler, on an idle queue",
    figures: { "pickup p50": ms, "pickup p95": ms, "pickup p99": ms },
    run: pickup,
  },
  "round-trip": {
    what: "ms to enqueue a job and have its result back; such round trips per second with 50 under way",
    figures: {
      "round trip p50": ms,
      "round trip p95": ms,
      "round trips, 50 in flight": { unit: "/s", better: "higher" },
    },
    run: roundTrip,
  },
};
