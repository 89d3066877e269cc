// What is measured. A scenario answers figures of one contestant in one round; run.js repeats and compares.
import { monotonic, sleep } from "./clock.js";
import { withClient } from "./database.js";
import { ContestantProcess } from "./process.js";
import { serverCpuUs } from "./server-cpu.js";
import { quantile } from "./statistics.js";

/** What each figure means: its unit and which way is better. */
export const figures = {
  "enqueue, 1 in flight": { unit: "jobs/s", better: "higher" },
  "enqueue, 10 in flight": { unit: "jobs/s", better: "higher" },
  "enqueue, 50 in flight": { unit: "jobs/s", better: "higher" },
  "enqueue, 50 in flight, producer CPU": { unit: "us/job", better: "lower" },
  drain: { unit: "jobs/s", better: "higher" },
  "drain, worker CPU": { unit: "us/job", better: "lower" },
  "drain, server CPU": { unit: "us/job", better: "lower" },
  "drain, WAL": { unit: "bytes/job", better: "lower" },
  "pickup p50": { unit: "ms", better: "lower" },
  "pickup p95": { unit: "ms", better: "lower" },
  "pickup p99": { unit: "ms", better: "lower" },
};

const inFlights = [1, 10, 50];
const pickupEveryMs = 20;
const pickupWarmUp = 25;
const giveUpMs = 120_000;

/** Jobs stored per second while 1, 10 or 50 calls are under way. */
async function enqueue({ contestant, name, url, options, profileDir }) {
  const result = {};
  for (const inFlight of inFlights) {
    await fresh(contestant, url);
    const producer = await ContestantProcess.start({ contestant: name, role: "producer", url, profileDir });
    try {
      const { perSecond, cpuUs } = await producer.call("enqueueLoop", { inFlight, ms: options.ms });
      result[`enqueue, ${inFlight} in flight`] = perSecond;
      if (inFlight === 50) result["enqueue, 50 in flight, producer CPU"] = cpuUs;
    } finally {
      await producer.stop();
    }
  }
  return result;
}

/** No-op jobs per second of one worker, from the first start of a handler to the last completion committed. */
async function drain({ contestant, name, url, options, profileDir }) {
  const { jobs, concurrency } = options;
  await fresh(contestant, url);
  const producer = await ContestantProcess.start({ contestant: name, role: "producer", url });
  await producer.call("enqueueMany", { count: jobs }).finally(() => producer.stop());
  return withClient(url, async (client) => {
    await contestant.settle(client);
    await client.query("checkpoint");
    const wal = await walPosition(client);
    const worker = await ContestantProcess.start({ contestant: name, role: "worker", url, profileDir });
    try {
      const done = worker.once("done");
      await worker.call("work", { concurrency, expected: jobs });
      const { first } = await within(done, `${name} did not finish ${jobs} jobs`);
      while (await contestant.unfinished(client)) await sleep(1);
      const end = monotonic();
      const serverUs = await serverCpuUs(client);
      const { count, cpuUs } = await worker.call("report");
      const finished = await contestant.finished(client);
      if (count !== jobs || finished !== jobs) {
        throw new Error(`${name}: ${jobs} jobs, ${count} runs, ${finished} recorded as complete`);
      }
      return {
        drain: jobs / ((end - first) / 1e9),
        "drain, worker CPU": cpuUs / jobs,
        ...(serverUs === undefined ? {} : { "drain, server CPU": serverUs / jobs }),
        "drain, WAL": (await walBytes(client, wal)) / jobs,
        shape: await contestant.shape?.(client),
      };
    } finally {
      await worker.stop();
    }
  });
}

/** From the call of enqueue in one process to the start of the handler in another, one job at a time. */
async function pickup({ contestant, name, url, options, profileDir }) {
  await fresh(contestant, url);
  const count = options.samples + pickupWarmUp;
  const worker = await ContestantProcess.start({ contestant: name, role: "worker", url, profileDir });
  const producer = await ContestantProcess.start({ contestant: name, role: "producer", url });
  try {
    const done = worker.once("done");
    await worker.call("work", { concurrency: options.concurrency, expected: count, trace: true });
    await sleep(1_000);
    const began = await producer.call("enqueuePaced", { count, everyMs: pickupEveryMs });
    await within(done, `${name} did not pick up ${count} jobs`);
    const { starts } = await worker.call("report");
    const latencies = starts.filter(([i]) => i >= pickupWarmUp).map(([i, at]) => (at - began[i]) / 1e6);
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

export const scenarios = { enqueue, drain, pickup };

async function fresh(contestant, url) {
  await withClient(url, async (client) => {
    await contestant.empty(client);
    await contestant.settle(client);
    await client.query("checkpoint");
  });
}

async function walPosition(client) {
  const { rows } = await client.query("select pg_current_wal_insert_lsn()::text as position");
  return rows[0].position;
}

async function walBytes(client, since) {
  const { rows } = await client.query("select (pg_current_wal_insert_lsn() - $1::pg_lsn)::float8 as bytes", [
    since,
  ]);
  return rows[0].bytes;
}

async function within(promise, complaint) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${complaint} within ${giveUpMs / 1_000} s`)), giveUpMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
