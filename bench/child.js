// One role of one contestant: a producer of jobs, a worker, or both.
import { monotonic, sleep } from "./clock.js";
import { loadContestant } from "./contestants/index.js";

let contestant;
let url;
let producer;
let worker;

const commands = {
  async init(input) {
    contestant = await loadContestant(input.contestant);
    url = input.url;
    if (input.role === "producer") producer = await contestant.producer(url);
  },

  /** Keeps `inFlight` calls under way for `ms`. */
  enqueueLoop: ({ inFlight, ms }) => rateOf((i) => producer.enqueue({ i }), inFlight, ms),

  async enqueueMany({ count }) {
    const payloads = Array.from({ length: count }, (_, i) => ({ i }));
    const start = monotonic();
    await producer.enqueueMany(payloads);
    return { rate: count / ((monotonic() - start) / 1e9) };
  },

  hasRoundTrip: () => producer.roundTrip !== undefined,

  /** One after another, as many of `count` as begin within `ms`. Answers the milliseconds of each. */
  async roundTrips({ count, ms }) {
    const lengths = [];
    const end = monotonic() + ms * 1e6;
    for (let i = 0; i < count && monotonic() < end; i++) {
      const start = monotonic();
      await producer.roundTrip({ i });
      lengths.push((monotonic() - start) / 1e6);
    }
    return lengths;
  },

  roundTripLoop: ({ inFlight, ms }) => rateOf((i) => producer.roundTrip({ i }), inFlight, ms),

  /** One job every `everyMs`. Answers when each call began. */
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
   * Starts a worker whose jobs take `sleepMs`. Sends the event `progress` about every 2 ms in which it ended jobs, and
   * `done` when the handler was called `expected` times.
   */
  async work({ concurrency, best, expected, trace, sleepMs }) {
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
      process.send({ event: "progress", added: count - told });
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
    worker = await contestant.worker(url, { concurrency, best, handler });
    worker.report = () => ({ count, first, last, starts, cpuUs: cpuSince(cpu) });
  },

  report: () => worker.report(),

  /**
   * Stores `jobs` at once, then starts a worker and asks every `everyMs`, for `ms` at most, how many are left. Answers the
   * rates of both, and how often the handler ran.
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
    // A worker may use the producer's connections.
    await worker?.stop();
    await producer?.stop();
  },
};

function cpuSince(start) {
  const { user, system } = process.cpuUsage(start);
  return user + system;
}

/** Calls `call` again and again, `inFlight` at a time, for a moment to warm up and then for `ms`. */
async function rateOf(call, inFlight, ms) {
  await keepInFlight(call, inFlight, 300);
  const cpu = process.cpuUsage();
  const { count, ns } = await keepInFlight(call, inFlight, ms);
  return { rate: count / (ns / 1e9), cpuUs: cpuSince(cpu) / count };
}

async function keepInFlight(call, inFlight, ms) {
  let count = 0;
  const start = monotonic();
  const end = start + ms * 1e6;
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (monotonic() < end) await call(count++);
    }),
  );
  return { count, ns: monotonic() - start };
}

process.on("message", async ({ id, command, input }) => {
  try {
    process.send({ id, value: await commands[command](input) });
  } catch (error) {
    process.send({ id, error: error instanceof Error ? error.stack : String(error) });
  }
});
process.once("disconnect", () => process.exit());
