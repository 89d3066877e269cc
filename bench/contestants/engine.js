/** The engine of the generated application with its defaults, used through its public entry point. */
import { tracingChannel } from "node:diagnostics_channel";
import { importEngine } from "../engine-build.js";
import { admin as redisAdmin } from "./redis-admin.js";
import { admin } from "./saq-table.js";
import { transactionsOf } from "./transactions.js";

const quiet = { debug() {}, info() {}, warn: console.warn, error: console.error, child: () => quiet };

/** The concurrency for the fastest drain (`best`). No other setting differs from the defaults. */
const bestConcurrency = 100;

/**
 * `build` selects the compiled engine: "engine" is the one of the work tree, "before" the one of the older commit.
 * `observed`: all its channels have subscribers, which do nothing. `redis`: the queue is on Redis.
 */
export async function contestant({ build, version, observed = false, redis = false }) {
  if (observed) subscribeToAll();
  const { createSaq, defineQueue, defineSaq } = await importEngine("index.js", build);

  function open(url, { concurrency, best, handler, transactions }) {
    const jobsAtOnce = best ? bestConcurrency : concurrency;
    const noop = transactions
      ? (ctx, payload) => transactions.run((client) => ctx.finish(handler(payload), { client }))
      : async (_ctx, payload) => handler(payload);
    const queue = defineQueue({
      name: "default",
      dsn: url,
      ...(jobsAtOnce ? { concurrency: jobsAtOnce } : {}),
      tasks: { noop },
    });
    const saq = createSaq(defineSaq({ queues: [queue], logger: quiet }));
    return { saq, queue: saq.taskQueues.get("default") };
  }

  async function install(url) {
    const { queue } = open(url, { handler: () => null });
    await queue.connect();
    await queue.close();
  }

  async function start(saq) {
    const workers = saq.workers();
    for (const one of workers) await one.start();
    return {
      stop: async () => {
        for (const one of workers) await one.stop();
      },
    };
  }

  async function producer(url, options = { handler: () => null }) {
    const { saq, queue } = open(url, options);
    await queue.connect();
    return {
      enqueue: (payload) => queue.enqueue("noop", payload),
      enqueueMany: (payloads, { deleted }) =>
        queue.enqueueMany(
          payloads.map((payload) => ({ task: "noop", payload, ...(deleted ? { ttl: -1 } : {}) })),
        ),
      roundTrip: (payload) => queue.apply("noop", payload),
      retryFailed: () => queue.changeMany({ error: "ECONNREFUSED" }, "retry"),
      incomplete: () => queue.count("incomplete"),
      work: () => start(saq),
      stop: () => queue.close(),
    };
  }

  async function worker(url, options) {
    const transactions = options.inTransaction ? transactionsOf(url, options.concurrency) : null;
    const { saq } = open(url, { ...options, transactions });
    await start(saq);
    return {
      stop: async () => {
        await saq.close();
        await transactions?.close();
      },
    };
  }

  return {
    version,
    ...(redis ? { redisDatabase: build === "before" ? 2 : 1 } : {}),
    hasGroups: !redis,
    deletesJobs: true,
    changesMany: build === "engine",
    hasTransactions: !redis,
    admin: redis ? redisAdmin : admin,
    install,
    producer,
    worker,
  };
}

function subscribeToAll() {
  const ignore = () => {};
  const handlers = { start: ignore, end: ignore, asyncStart: ignore, asyncEnd: ignore, error: ignore };
  for (const name of ["enqueue", "process", "claim", "settle"])
    tracingChannel(`saq:${name}`).subscribe(handlers);
}
