// The child process that runs one role of one contestant: a producer of jobs, a worker, or both.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { monotonic, sleep, within } from "./clock.js";
import { loadContestant } from "./contestants/index.js";

let contestant;
let url;
let producer;
let worker;
let collectGarbage;

const commands = {
  async init(input) {
    contestant = await loadContestant(input.contestant);
    url = input.url;
    if (input.role === "producer") producer = await contestant.producer(url);
  },

  /** Keeps `inFlight` calls in progress for `ms`. */
  enqueueLoop: ({ inFlight, ms }) => rateOf((i) => producer.enqueue({ i }), inFlight, ms),

  /** Stores `count` jobs, `inFlight` at the same time, or as many as it can store in `ms`. */
  enqueueSome: ({ count, inFlight, ms }) =>
    keepInFlight((i) => producer.enqueue({ i }), inFlight, { ms, most: count }),

  async enqueueMany({ count, deleted, text }) {
    const payloads = Array.from({ length: count }, (_, i) => (text ? { i, text } : { i }));
    const start = monotonic();
    await producer.enqueueMany(payloads, { deleted });
    return { rate: count / ((monotonic() - start) / 1e9) };
  },

  /**
   * Enqueues `rate` jobs per second, without waiting until previous jobs are stored. Returns the number of stored jobs.
   */
  async enqueueSteadily({ rate, ms }) {
    let count = 0;
    let failure;
    const calls = new Set();
    const start = performance.now();
    for (let passed = 0; passed < ms; passed = performance.now() - start) {
      for (const due = (passed / 1_000) * rate; count < due; count++) {
        const call = producer
          .enqueue({ i: count })
          .catch((error) => {
            failure ??= error;
          })
          .finally(() => calls.delete(call));
        calls.add(call);
      }
      await sleep(10);
    }
    await Promise.all(calls);
    if (failure) throw failure;
    return count;
  },

  /**
   * Returns in bytes: `live`, the heap in use after a garbage collection, and `resident`, read before the collection.
   */
  memory() {
    const { rss: resident } = process.memoryUsage();
    if (!collectGarbage) {
      setFlagsFromString("--expose-gc");
      collectGarbage = runInNewContext("gc");
    }
    collectGarbage();
    const { heapUsed, external } = process.memoryUsage();
    return { live: heapUsed + external, resident };
  },

  /** Retries all failed jobs. Returns how many there were, and how long it took in seconds. */
  async retryFailed() {
    const start = monotonic();
    const { changed } = await producer.retryFailed();
    return { changed, seconds: (monotonic() - start) / 1e9 };
  },

  hasRoundTrip: () => producer.roundTrip !== undefined,

  /**
   * Makes at most `count` round trips one after another, for about `ms` at most. Returns the duration of each in ms.
   */
  async roundTrips({ count, ms }) {
    const lengths = [];
    const end = performance.now() + ms;
    for (let i = 0; i < count && performance.now() < end; i++) {
      const start = monotonic();
      await producer.roundTrip({ i });
      lengths.push((monotonic() - start) / 1e6);
    }
    return lengths;
  },

  roundTripLoop: ({ inFlight, ms, longest }) =>
    rateOf((i) => producer.roundTrip({ i }), inFlight, ms, longest),

  /** Enqueues one job every `everyMs`. Returns the start time of each call, in ns of the monotonic clock. */
  async enqueuePaced({ count, everyMs }) {
    const began = [];
    const calls = [];
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      await sleep(Math.max(0, start + i * everyMs - performance.now()));
      began.push(monotonic());
      calls.push(producer.enqueue({ i }));
    }
    await Promise.all(calls);
    return began;
  },

  /**
   * Starts a worker whose jobs take `sleepMs`. While jobs end, it sends the event `progress` about every 2 ms. It sends
   * `done` when `expected` handlers have ended.
   */
  async work({ concurrency, best, expected, trace, sleepMs, inTransaction }) {
    let count = 0;
    let told = 0;
    let first = 0;
    let last = 0;
    let telling = false;
    const starts = [];
    const cpu = process.cpuUsage();
    const tell = () => {
      telling = false;
      if (!process.connected) return;
      // The callback ignores an error, because the parent may have just closed the channel.
      process.send({ event: "progress", added: count - told }, () => {});
      told = count;
    };
    const ran = (i) => {
      count++;
      last = monotonic();
      if (count === expected) process.send({ event: "done" });
      if (!telling) {
        telling = true;
        setTimeout(tell, 2);
      }
      return { ok: i };
    };
    const handler = ({ i }) => {
      const now = first === 0 || trace ? monotonic() : 0;
      if (first === 0) first = now;
      if (trace) starts.push([i, now]);
      return sleepMs ? sleep(sleepMs).then(() => ran(i)) : ran(i);
    };
    worker = await contestant.worker(url, { concurrency, best, inTransaction, handler });
    worker.report = () => ({ count, first, last, starts, cpuUs: cpuSince(cpu) });
  },

  report: () => worker.report(),

  /**
   * Stores `jobs` jobs at the same time. Then it starts a worker and counts every `everyMs` how many jobs are left, for
   * at most `ms`. Returns both rates, the number of handler calls, and the number of jobs that are left.
   */
  async saqBenchmark({ jobs, concurrency, everyMs, ms }) {
    let runs = 0;
    const handler = () => {
      runs++;
      return 1;
    };
    const options = { concurrency, handler };
    producer = await contestant.producer(url, options);
    const start = monotonic();
    await Promise.all(Array.from({ length: jobs }, (_, i) => producer.enqueue({ i })));
    const stored = monotonic();
    worker = await (producer.work?.() ?? contestant.worker(url, options));
    let left = await producer.incomplete();
    while (left > 0 && monotonic() - stored < ms * 1e6) {
      await sleep(everyMs);
      left = await producer.incomplete();
    }
    const rate = (count, ns) => count / (ns / 1e9);
    return {
      enqueued: rate(jobs, stored - start),
      finished: rate(jobs - left, monotonic() - stored),
      runs,
      left,
    };
  },

  async stop() {
    // The worker is stopped first, because it may use the producer's connections.
    await worker?.stop();
    await producer?.stop();
  },
};

function cpuSince(start) {
  const { user, system } = process.cpuUsage(start);
  return user + system;
}

/**
 * Calls `call` repeatedly, `inFlight` at the same time: first for 300 ms to warm up, then for `ms`. If the calls of the
 * warm-up do not return within `longest` after its end, the warm-up is the measurement. Returns calls per second, and
 * CPU time per call in microseconds.
 */
async function rateOf(call, inFlight, ms, longest) {
  const warmUp = await keepInFlight(call, inFlight, { ms: 300, longest });
  const { count, ns, cpuUs } = warmUp.isWhole ? await keepInFlight(call, inFlight, { ms, longest }) : warmUp;
  return { rate: count / (ns / 1e9), cpuUs: cpuUs / count };
}

/**
 * Makes at most `most` calls and starts none after `ms`. After that it waits at most `longest` ms for calls to return.
 */
async function keepInFlight(call, inFlight, { ms, most = Number.POSITIVE_INFINITY, longest = 2 ** 30 }) {
  let made = 0;
  let count = 0;
  const cpu = process.cpuUsage();
  const start = monotonic();
  const end = start + ms * 1e6;
  const all = Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (made < most && monotonic() < end) {
        await call(made++);
        count++;
      }
    }),
  );
  const isWhole = await within(ms + longest, all);
  return { isWhole, count, ns: monotonic() - start, cpuUs: cpuSince(cpu) };
}

process.on("message", async ({ id, command, input }) => {
  try {
    process.send({ id, value: await commands[command](input) });
  } catch (error) {
    process.send({ id, error: error instanceof Error ? error.stack : String(error) });
  }
});
process.once("disconnect", () => process.exit());
