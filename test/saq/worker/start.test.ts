/** A worker that starts while its database is unreachable waits for the database, for a limited time. */
import { afterAll, beforeAll, expect, it, jest } from "@jest/globals";
import { openProxy } from "../support/cuttable-proxy.js";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase, type TestDatabase } from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";
import { onRedis } from "../support/test-broker.js";

jest.setTimeout(120_000);

let database: TestDatabase;

beforeAll(async () => {
  database = await newDatabase("start");
});
afterAll(async () => {
  await endAllWorkers();
  await database.drop();
});

const doesNotAnswer = onRedis ? /^Redis at \S+ does not answer: / : /^The database does not answer/;
const troubles = (worker: WorkerProcess) =>
  worker.lines.filter(({ level }) => level === "warn" || level === "error");

it("a starting worker retries until the database is reachable, and logs the wait once", async () => {
  const proxy = await openProxy(database);
  proxy.refuse();
  const worker = new WorkerProcess({ ...database.worker, url: proxy.url });
  await worker.said(onRedis ? "Redis does not answer" : "the database is unavailable", 60_000);
  expect(await worker.said("waiting for the database")).toMatchObject({
    level: "info",
    upToSeconds: 60,
    reason: expect.stringMatching(doesNotAnswer),
  });
  const { tries } = proxy;
  await eventually("it has tried again", async () => proxy.tries > tries + 4);
  proxy.admit();
  await worker.said("Worker starting: default");
  await worker.said("over after");
  expect(troubles(worker)).toHaveLength(1);
  expect(worker.lines.filter(({ message }) => message.startsWith("waiting for the database"))).toHaveLength(
    1,
  );
  const { queue, close } = openQueue(database.url, { pollInterval: database.worker.pollInterval ?? 0 });
  const job = await queue.enqueue("record");
  await eventually("the job ran", async () => (await job.refresh()).status === "complete");
  expect((await worker.stop()).code).toBe(0);
  await close();
  await proxy.close();
});

it("a starting worker gives up after startTimeout, with exit code 1 and the reason", async () => {
  const proxy = await openProxy(database);
  proxy.refuse();
  const worker = new WorkerProcess({ ...database.worker, url: proxy.url, startTimeout: 1 });
  expect((await worker.exit(60_000)).code).toBe(1);
  expect(proxy.tries).toBeGreaterThan(1);
  const last = worker.lines.find(({ message }) => message === "the worker could not start");
  expect(last).toMatchObject({
    level: "error",
    reason: expect.stringMatching(doesNotAnswer),
  });
  await proxy.close();
});

it("a worker that waits for the database ends at once when it is stopped", async () => {
  const proxy = await openProxy(database);
  proxy.refuse();
  const worker = new WorkerProcess({ ...database.worker, url: proxy.url });
  await worker.said("waiting for the database", 60_000);
  const { code, ms } = await worker.stop();
  expect(code).toBe(0);
  expect(ms).toBeLessThan(5_000);
  await proxy.close();
});

it("a starting worker does not wait if the database does not exist", async () => {
  // The test's Redis has fewer databases.
  const pathname = onRedis ? "/99999" : "/no_such_database";
  const url = Object.assign(new URL(database.url), { pathname }).href;
  const worker = new WorkerProcess({ ...database.worker, url });
  expect((await worker.exit(60_000)).code).toBe(1);
  expect(worker.lines.some(({ message }) => message.startsWith("waiting for the database"))).toBe(false);
});
