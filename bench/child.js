// One role of one contestant: a producer of jobs or a worker.
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
  async enqueueLoop({ inFlight, ms }) {
    await keepInFlight(inFlight, 300);
    const cpu = process.cpuUsage();
    const { count, ns } = await keepInFlight(inFlight, ms);
    return { perSecond: count / (ns / 1e9), cpuUs: cpuSince(cpu) / count, count };
  },

  async enqueueMany({ count }) {
    const chunk = 2_000;
    for (let from = 0; from < count; from += chunk) {
      const size = Math.min(chunk, count - from);
      await producer.enqueueMany(Array.from({ length: size }, (_, index) => ({ i: from + index })));
    }
  },

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

  /** Starts a worker; sends the event `done` when the handler was called `expected` times. */
  async work({ concurrency, expected, trace }) {
    let count = 0;
    let first = 0;
    const starts = [];
    const cpu = process.cpuUsage();
    const handler = ({ i }) => {
      if (first === 0) first = monotonic();
      if (trace) starts.push([i, monotonic()]);
      if (++count === expected) process.send({ event: "done", first });
      return { ok: i };
    };
    worker = await contestant.worker(url, { concurrency, handler });
    worker.report = () => ({ count, first, starts, cpuUs: cpuSince(cpu) });
  },

  report: () => worker.report(),

  async stop() {
    await producer?.stop();
    await worker?.stop();
  },
};

function cpuSince(start) {
  const { user, system } = process.cpuUsage(start);
  return user + system;
}

async function keepInFlight(inFlight, ms) {
  let count = 0;
  const start = monotonic();
  const end = start + ms * 1e6;
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (monotonic() < end) await producer.enqueue({ i: count++ });
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
