/**
 * Who takes part. A contestant is an object with
 *
 * - `version`: shown beside the figures
 * - `redis`, optional: true when it lives in Redis; its `url` is that server's then
 * - `absent`, optional: why it cannot take part here
 * - `command`, optional: the program that plays its roles, when it is not written for Node. It does what child.js does, by
 *   lines of JSON over its standard input and output, and the module has neither `producer` nor `worker`
 * - `hasGroups`, optional: true when only one job of a group runs at a time
 * - `deletesJobs`, optional: true when jobs that `enqueueMany` stores with `{ deleted: true }` are deleted at their end
 * - `hasTransactions`, optional: true when its worker knows `inTransaction`
 * - `mostJobs`, optional: how many jobs are stored for a drain at most
 * - `install(url)`: makes its tables in an empty database
 * - `producer(url, options?)` -> `{ enqueue(payload), enqueueMany(payloads, { deleted }), roundTrip(payload)?,
 *   incomplete(), work()?, stop() }`; each call resolves once it is committed, `roundTrip` with the job's result.
 *   `incomplete` counts the jobs that wait or run, by its own API where it has a fresh count. `work` starts what
 *   `worker(url, options)` does, on the same connections, where it is made to have both in one process; it is called
 *   only when there are options
 * - `worker(url, { concurrency, best, inTransaction, handler })` -> `{ stop() }`; calls `handler(payload)` and stores
 *   what it returns. `best` asks for the settings with which it drains fastest, whatever `concurrency` says;
 *   `inTransaction` for a transaction per job, in which the job is finished where there is such a thing
 * - `admin(url)` -> `{ client, empty(), settle(), unfinished(), finished(), fill(kind, count, { groups }?), close(), trim()?,
 *   demote()?, holdGroups()?, shape()? }`,
 *   `client` a connection to its PostgreSQL, or null:
 *   - `empty` throws away all jobs; `settle` vacuums and analyses
 *   - `unfinished` tells whether any due job still waits or runs; asked often, so it must be cheap
 *   - `finished` counts the jobs recorded as complete; null where none are kept
 *   - `fill` stores that many `queued`, `future` or `finished` jobs by SQL, never measured, spread over so many groups;
 *     false where there is no such thing
 *   - `holdGroups` makes the first job of each group one that somebody runs
 *   - `trim` throws away all jobs but those of the last `fill`, `future` or `finished`; false where that did not succeed
 *   - `demote` gives all due jobs a later priority than those of the future have
 *   - `shape`: what one finished job looks like in the table; contestants that have it must agree
 *
 * Peers are measured twice: as their documentation first shows them, and with their best documented settings.
 */
const contestants = {
  engine: async () =>
    (await import("./engine.js")).contestant({ build: "engine", version: "this repository" }),
  "engine-before": async () => {
    const commit = process.env.BENCH_BEFORE;
    if (!commit) return { absent: "set BENCH_BEFORE to an older commit of this repository" };
    return (await import("./engine.js")).contestant({ build: "before", version: commit });
  },
  "minimal-wire": () => import("./minimal-wire.js"),
  "graphile-worker": async () => (await import("./graphile-worker.js")).contestant({ tuned: false }),
  "graphile-worker-tuned": async () => (await import("./graphile-worker.js")).contestant({ tuned: true }),
  "pg-boss": async () => (await import("./pg-boss.js")).contestant({ tuned: false }),
  "pg-boss-tuned": async () => (await import("./pg-boss.js")).contestant({ tuned: true }),
  "bullmq-postgres": async () => (await import("./bullmq.js")).contestant({ redis: false }),
  "bullmq-redis": async () => (await import("./bullmq.js")).contestant({ redis: true }),
  saq: () => import("./saq.js"),
};

/** By its name: "tuned" are the best documented settings of a peer on PostgreSQL, "redis" is every peer on Redis. */
export function groupOf(name) {
  if (["engine", "engine-before", "minimal-wire"].includes(name)) return name;
  if (name.endsWith("-redis")) return "redis";
  return name.endsWith("-tuned") ? "tuned" : "defaults";
}

export const contestantNames = Object.keys(contestants);

/** @throws when the contestant's package is not installed: `npm install` in this folder */
export const loadContestant = (name) => contestants[name]();
