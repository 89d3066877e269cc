/**
 * Who takes part. A contestant is a module in this folder that exports
 *
 * - `version`: shown beside the figures
 * - `install(url)`: makes its tables in an empty database
 * - `producer(url)` -> `{ enqueue(payload), enqueueMany(payloads), stop() }`; each call resolves once it is committed
 * - `worker(url, { concurrency, handler })` -> `{ stop() }`; calls `handler(payload)` and stores what it returns
 * - `empty(client)`: throws away all jobs
 * - `settle(client)`: vacuums and analyses its tables
 * - `unfinished(client)`: whether any job still waits or runs; asked often, so it must be cheap
 * - `finished(client)`: how many jobs are recorded as complete
 * - `shape(client)`, optional: what one finished job looks like in the table; contestants that have it must agree
 */
const modules = {
  engine: "./engine.js",
  "minimal-wire": "./minimal-wire.js",
};

export const contestantNames = Object.keys(modules);

export const loadContestant = (name) => import(modules[name]);
