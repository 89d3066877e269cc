/**
 * The contestants of the benchmark. A contestant is an object with
 *
 * - `version`: shown next to the figures
 * - `redisDatabase`, optional: the number of its database if it uses Redis; `url` is then the address of this database
 * - `absent`, optional: the reason why it cannot take part on this machine
 * - `command`, optional: the program that runs its roles, if it is not written for Node. The program has the commands
 *   of child.js, as lines of JSON over its standard input and output; the module then has neither `producer` nor
 *   `worker`
 * - `hasGroups`, optional: true if only one job of a group runs at a time
 * - `deletesJobs`, optional: true if jobs that `enqueueMany` stores with `{ deleted: true }` are deleted when they end
 * - `hasTransactions`, optional: true if its worker supports `inTransaction`
 * - `changesMany`, optional: true if its producer has `retryFailed()`, which retries all failed jobs and returns how
 *   many were `changed`, and its admin `watchLocks()`. This starts to look for how long rows or the server are locked,
 *   and returns a function that ends this and returns the longest time in ms
 * - `mostJobs`, optional: the maximum number of jobs that are stored for a drain
 * - `install(url)`: creates its tables in an empty database
 * - `producer(url, options?)` -> `{ enqueue(payload), enqueueMany(payloads, { deleted }), roundTrip(payload)?,
 *   incomplete(), work()?, stop() }`. Each call resolves when it is committed; `roundTrip` resolves with the job's
 *   result. `incomplete` counts the jobs that wait or run, with the contestant's own API if its count is up to date.
 *   `work` starts a worker as `worker(url, options)` does, but on the producer's connections; it exists if the
 *   contestant is made for both in one process. `work` is called only if there are `options`
 * - `worker(url, { concurrency, best, inTransaction, handler })` -> `{ stop() }`. It calls `handler(payload)` and
 *   stores the returned value. `best` selects the settings with the fastest drain, whatever `concurrency` is.
 *   `inTransaction` selects one transaction per job; if the contestant can, it finishes the job in that transaction
 * - `admin(url)` -> `{ client, empty(), settle(), unfinished(), finished(), fill(kind, count, { groups }?), close(),
 *   serverCpuUs()?, trim()?, demote()?, holdGroups()?, shape()? }`. `client` is a connection to its PostgreSQL, or
 *   null:
 *   - `empty` deletes all jobs; `settle` vacuums and analyses the tables
 *   - `unfinished` returns true if any due job still waits or runs; it is called often, so it must be cheap
 *   - `finished` returns the number of jobs recorded as complete, or null if complete jobs are not kept
 *   - `fill` stores `count` `queued`, `future`, `finished` or (with `changesMany`) `failed` jobs with SQL, spread over
 *     `groups` groups; it is never measured. It returns false if the contestant does not have this kind of jobs
 *   - `serverCpuUs` returns the CPU time that its Redis has used, in microseconds; it exists if `client` is null
 *   - `holdGroups` marks the first job of each group as running
 *   - `trim` deletes all jobs except the `future` or `finished` jobs of the last `fill`; it returns false if this
 *     failed
 *   - `demote` gives all due jobs a lower priority than the jobs of the future
 *   - `shape` returns a description of one finished job in the table; all contestants that have it must agree
 *
 * Peers are measured twice: with the settings that their documentation shows first, and with the best settings that it
 * documents.
 */
const contestants = {
  engine: async () =>
    (await import("./engine.js")).contestant({ build: "engine", version: "this repository" }),
  "engine-before": () => engineBefore({}),
  "engine-observed": async () =>
    (await import("./engine.js")).contestant({
      build: "engine",
      version: "with subscribers",
      observed: true,
    }),
  "engine-redis": async () =>
    (await import("./engine.js")).contestant({ build: "engine", version: "this repository", redis: true }),
  "engine-redis-before": () => engineBefore({ redis: true }),
  "minimal-wire": () => import("./minimal-wire.js"),
  "graphile-worker": async () => (await import("./graphile-worker.js")).contestant({ tuned: false }),
  "graphile-worker-tuned": async () => (await import("./graphile-worker.js")).contestant({ tuned: true }),
  "pg-boss": async () => (await import("./pg-boss.js")).contestant({ tuned: false }),
  "pg-boss-tuned": async () => (await import("./pg-boss.js")).contestant({ tuned: true }),
  "bullmq-postgres": async () => (await import("./bullmq.js")).contestant({ redis: false }),
  "bullmq-redis": async () => (await import("./bullmq.js")).contestant({ redis: true }),
  saq: async () => (await import("./saq.js")).contestant({ redis: false }),
  "saq-redis": async () => (await import("./saq.js")).contestant({ redis: true }),
};

async function engineBefore(options) {
  const commit = process.env.BENCH_BEFORE;
  if (!commit) return { absent: "set BENCH_BEFORE to an older commit of this repository" };
  return (await import("./engine.js")).contestant({ build: "before", version: commit, ...options });
}

/**
 * Returns the group of a contestant by its name. "defaults" and "tuned" are peers on PostgreSQL with their default and
 * with their best documented settings; "redis" is every peer on Redis; the others are their own group.
 */
export function groupOf(name) {
  if (name.startsWith("engine") || name === "minimal-wire") return name;
  if (name.endsWith("-redis")) return "redis";
  return name.endsWith("-tuned") ? "tuned" : "defaults";
}

export const contestantNames = Object.keys(contestants);

/** @throws Error if the contestant's package is not installed; `npm install` in the folder bench/ installs it */
export const loadContestant = (name) => contestants[name]();
