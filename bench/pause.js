#!/usr/bin/env node
// Measures pauses: how long workers go on after a pause, and what the jobs of a paused task cost the other jobs.
import { createClient } from "@redis/client";
import { createDatabase, dropDatabase, startDatabase } from "./database.js";
import { buildEngine, importEngine } from "./engine-build.js";
import { readOptions, whole } from "./options.js";
import { quartiles } from "./statistics.js";

const numbers = { rounds: 5, workers: 10, front: 1_000_000, others: 10_000 };
const help = `Usage: node bench/pause.js [options]

Workers with 10 slots each run jobs of 12 ms, so that each has claimed about 200 jobs ahead. Then the queue, a task or
a group is paused. Shows the last start of a paused job after the call of \`pause\`, and the first one after the call
of \`resume\`; for a task and a group also how many other jobs start in the second after the pause.

Then a task with many waiting jobs is paused, and one worker runs jobs of another task behind them.

  --rounds N    default ${numbers.rounds}
  --workers N   default ${numbers.workers}
  --front N     jobs of the paused task in front of the others, default ${numbers.front}
  --others N    jobs of the other task, default ${numbers.others}
  -h, --help

BENCH_DATABASE_URL   a server to use instead of an embedded PostgreSQL; the database bench_pause is made there and
                     dropped
BENCH_REDIS_URL      measures on this Redis too; its database 3 is emptied
`;

const options = readOptions({
  program: "bench/pause.js",
  help,
  options: Object.fromEntries(
    Object.entries(numbers).map(([name, value]) => [name, { type: "string", default: String(value) }]),
  ),
  resolve: (values) =>
    Object.fromEntries(Object.keys(numbers).map((name) => [name, whole(name, values[name])])),
});
if (options) {
  await run(options).catch((error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
}

async function run({ rounds, workers, front, others }) {
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));
  buildEngine();
  const server = await startDatabase();
  const name = "bench_pause";
  const storages = { PostgreSQL: () => createDatabase(server.url, name) };
  if (process.env.BENCH_REDIS_URL) storages.Redis = () => emptyRedis(process.env.BENCH_REDIS_URL);
  try {
    for (const [storage, prepare] of Object.entries(storages)) {
      for (const kind of storage === "Redis" ? ["queue", "task"] : ["queue", "task", "group"]) {
        const measured = [];
        for (let round = 0; round < rounds; round++)
          measured.push(await measurePause(await prepare(), kind, workers));
        print(`${storage}, a ${kind} is paused`, measured);
      }
      const measured = [];
      for (const size of [0, front]) measured.push(await measureFront(await prepare(), size, others));
      print(`${storage}, ${others} jobs behind 0 and ${front} jobs of a paused task`, measured);
    }
  } finally {
    await dropDatabase(server.url, name);
    await server.stop();
  }
}

/** Empties database 3 and returns its address. */
async function emptyRedis(serverUrl) {
  const url = new URL(serverUrl);
  url.pathname = "/3";
  const client = createClient({ url: url.href });
  await client.connect();
  await client.flushDb();
  await client.close();
  return url.href;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const quiet = { debug() {}, info() {}, warn: console.warn, error: console.error, child: () => quiet };

async function until(isTrue, what) {
  const deadline = performance.now() + 120_000;
  while (!(await isTrue())) {
    if (performance.now() > deadline) throw new Error(`After two minutes: ${what}`);
    await sleep(5);
  }
}

/** Opens a queue as a process of its own would: with its own connections. */
async function open(dsn, tasks, queueOptions = {}) {
  const { createSaq, defineQueue, defineSaq } = await importEngine("index.js");
  const saq = createSaq(
    defineSaq({ queues: [defineQueue({ name: "default", dsn, tasks, ...queueOptions })], logger: quiet }),
  );
  const queue = saq.taskQueues.get("default");
  await queue.connect();
  return { saq, queue };
}

/** Pauses while the workers have claimed jobs ahead. */
async function measurePause(dsn, kind, workerCount) {
  const starts = { paused: [], other: [] };
  const note = async (where) => {
    where.push(performance.now());
    await sleep(12);
  };
  const tasks = {
    covered: () => note(starts.paused),
    grouped: (ctx) => note(ctx.job.groupKey === "g0" ? starts.paused : starts.other),
    other: () => note(starts.other),
  };
  const { saq, queue } = await open(dsn, tasks);
  const workers = [];
  try {
    // At most 10 jobs in 12 ms run in each worker, for some seconds.
    const jobs = Array.from({ length: 4_000 * workerCount }, (_, n) => {
      if (kind === "queue" || (kind === "task" && n % 2 === 0)) return { task: "covered" };
      return kind === "group" && n % 2 === 0
        ? { task: "grouped", groupKey: `g${(n / 2) % 20}` }
        : { task: "other" };
    });
    for (let from = 0; from < jobs.length; from += 2_000)
      await queue.enqueueMany(jobs.slice(from, from + 2_000));
    for (let n = 0; n < workerCount; n++) workers.push(await open(dsn, tasks));
    await Promise.all(workers.flatMap((worker) => worker.saq.workers().map((one) => one.start())));
    await until(() => starts.paused.length > 0, "no job has started");
    await sleep(1_500);
    const target = { queue: {}, task: { task: "covered" }, group: { group: "g0" } }[kind];
    const { active } = await queue.counts();
    const pausedAt = performance.now();
    await queue.pause(target);
    const stored = performance.now() - pausedAt;
    await sleep(2_000);
    const resumedAt = performance.now();
    await queue.resume(target);
    await until(() => starts.paused.at(-1) > resumedAt, "nothing has started after resume");
    const stopped = starts.paused.findLast((at) => at < resumedAt) - pausedAt;
    const first = starts.paused.find((at) => at > resumedAt) - resumedAt;
    const between = (from) => starts.other.filter((at) => at >= from && at < from + 1_000).length;
    return {
      "claimed at the pause": active,
      "pause stored after, ms": stored,
      "last start after, ms": Math.max(stopped, 0),
      "first start after resume, ms": first,
      ...(kind === "queue"
        ? {}
        : {
            "other jobs in the second before": between(pausedAt - 1_000),
            "other jobs in the second after": between(pausedAt),
          }),
    };
  } finally {
    await Promise.all([saq, ...workers.map((worker) => worker.saq)].map((one) => one.close({ grace: 5 })));
  }
}

/** Runs jobs behind those of a paused task. */
async function measureFront(dsn, front, others) {
  let ended = 0;
  const starts = { covered: [], other: [] };
  const tasks = {
    covered: () => void starts.covered.push(performance.now()),
    other: () => {
      starts.other.push(performance.now());
      ended++;
    },
  };
  const { saq, queue } = await open(dsn, tasks);
  const worker = await open(dsn, tasks);
  try {
    const store = async (task, count) => {
      for (let from = 0; from < count; from += 5_000)
        await queue.enqueueMany(Array.from({ length: Math.min(5_000, count - from) }, () => ({ task })));
    };
    await store("covered", front);
    await store("other", others);
    if (front > 0) await queue.pause({ task: "covered" });
    const startedAt = performance.now();
    await Promise.all(worker.saq.workers().map((one) => one.start()));
    await until(() => ended >= others, "the other jobs have not ended");
    const lastAt = starts.other.at(-1);
    const pickups = [];
    for (let n = 0; n < 100; n++) {
      const enqueuedAt = performance.now();
      await queue.apply("other");
      pickups.push(starts.other.at(-1) - enqueuedAt);
      await sleep(20);
    }
    if (starts.covered.length > 0) throw new Error("A job of the paused task has started");
    const resumedAt = performance.now();
    if (front > 0) {
      await queue.resume({ task: "covered" });
      await until(() => starts.covered.length > 0, "nothing has started after resume");
    }
    return {
      "first other job after, ms": starts.other[0] - startedAt,
      "the other jobs per s": others / ((lastAt - starts.other[0]) / 1_000),
      "from a later enqueue to the start, median ms": quartiles(pickups).median,
      "and the longest, ms": Math.max(...pickups),
      "first start after resume, ms": front > 0 ? starts.covered[0] - resumedAt : Number.NaN,
    };
  } finally {
    await worker.saq.close({ grace: 5 });
    await saq.close({ grace: 5 });
  }
}

/** Prints the values of each figure. */
function print(title, measured) {
  console.log(`${title}:`);
  for (const figure of Object.keys(measured[0])) {
    const values = measured.map((one) => one[figure]);
    const text = values.map((value) => (Number.isNaN(value) ? "-" : Math.round(value * 10) / 10)).join("  ");
    console.log(`  ${figure.padEnd(48)}${text}`);
  }
}
