// Measures the latency of one job: until it starts, and until its result has arrived.
import { monotonic, sleep, within } from "../clock.js";
import { quantile } from "../statistics.js";

const ms = { unit: "ms", better: "lower" };
const everyMs = 20;
const warmUp = 25;
const settleMs = 1_000;

/**
 * Measures the time from the call of enqueue in one process to the start of the handler in another, with one job at a
 * time. The wait ends after `longest` ms; a job that has not started by then counts with the time until then.
 */
async function pickup(contender) {
  await contender.fresh();
  const { concurrency, longest, samples } = contender.options;
  const count = samples + warmUp;
  const worker = await contender.worker();
  const producer = await contender.producer();
  try {
    const done = worker.finished();
    await worker.call("work", { concurrency, expected: count, trace: true });
    await sleep(settleMs);
    const began = await producer.call("enqueuePaced", { count, everyMs });
    await within(longest, done);
    const end = monotonic();
    const { starts } = await worker.call("report");
    const started = new Map(starts);
    const latencies = began.map((at, i) => ((started.get(i) ?? end) - at) / 1e6).slice(warmUp);
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

/** Measures enqueueing a job and waiting for its result: one at a time, and 50 at the same time. */
async function roundTrip(contender) {
  await contender.fresh();
  const producer = await contender.producer();
  try {
    if (!(await producer.call("hasRoundTrip"))) return null;
    const worker = await contender.worker();
    try {
      const { concurrency, samples, longest, ms: length } = contender.options;
      await worker.call("work", { concurrency, expected: Number.POSITIVE_INFINITY });
      await sleep(settleMs);
      await producer.call("roundTrips", { count: warmUp, ms: length });
      const alone = await producer.call("roundTrips", { count: samples, ms: longest });
      const { rate } = await producer.call("roundTripLoop", { inFlight: 50, ms: length, longest });
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
