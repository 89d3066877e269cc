import { inspect } from "node:util";
import { beforeAll, describe, expect, it, jest } from "@jest/globals";
import { JobGoneError } from "../../../templates/backend/saq/errors.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { populate } from "../support/every-state.js";
import { documentIn, goldenDocuments, pythonComplaints } from "../support/golden-documents.js";
import {
  claim,
  deleteRow,
  editRow,
  insertRow,
  openQueue,
  rowOf,
  serverSeconds,
  settle,
  settlement,
  startWorker,
  useDatabase,
  workerRow,
} from "../support/scenario.js";
import { can, itOnTables, onRedis, possible } from "../support/test-broker.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (options: object = {}): Hello => openQueue(database, tasks, options);

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

it("a queue that is printed or logged shows no password", () => {
  const queue = openQueue({ url: "postgresql://app:hunter2@127.0.0.1:5/app" }, tasks);
  expect(inspect(queue, { depth: 10 })).toContain(queue.name);
  expect(inspect(queue, { depth: 10 })).not.toContain("hunter2");
  expect(JSON.stringify(queue)).not.toContain("hunter2");
});

describe("reading jobs", () => {
  it("J-17: job() and refresh() read every field; refresh() changes the object itself", async () => {
    const queue = open();
    const job = await queue.enqueue("hello", { a: 1 }, { ...possible({ priority: 4 }), meta: { m: 1 } });
    expect(await queue.job(job.key)).toEqual(job);
    const [claimed] = await claim(queue);
    expect(job.status).toBe("queued");
    expect(await job.refresh()).toBe(job);
    expect(job).toMatchObject({
      status: "active",
      attempts: 1,
      workerId: "worker-1",
      started: expect.any(Number),
    });
    if (claimed) await settle(queue, settlement(claimed, "complete", { result: [1] }));
    expect((await job.refresh()).result).toEqual([1]);
    expect(job.id).toBe(job.key);
  });

  it("D-69: refresh() rejects with JobGoneError when the row does not exist any more", async () => {
    const queue = open();
    const job = await queue.enqueue("hello");
    await deleteRow(database, job.key);
    await expect(job.refresh()).rejects.toThrow(JobGoneError);
    await expect(job.refresh()).rejects.toThrow(
      `Job ${job.key} does not exist (any more): it was deleted, or its ttl ran out`,
    );
  });

  it("P-27: jobs() keeps the order of the keys and returns null for unknown, foreign and invalid keys", async () => {
    const [queue, other] = [open(), open()];
    const [one, two, foreign] = [
      await queue.enqueue("hello"),
      await queue.enqueue("hello"),
      await other.enqueue("hello"),
    ];
    const found = await queue.jobs([two.key, "unknown", foreign.key, one.key, "a\0b", two.key]);
    expect(found.map((job) => job?.key ?? null)).toEqual([two.key, null, null, one.key, null, two.key]);
    expect(await queue.jobs([])).toEqual([]);
    expect(await queue.job("a\0b")).toBeNull();
  });

  it("V-2: a row with the old status deferred is read as queued", async () => {
    const queue = open();
    const job = await queue.enqueue("hello");
    await editRow(database, job.key, onRedis ? { members: { status: "deferred" } } : { status: "deferred" });
    expect((await queue.job(job.key))?.status).toBe("queued");
  });

  it.each(goldenDocuments)(
    "J-41, $clause: a row that Python wrote is read, and shown as Python wrote it",
    async (golden) => {
      const queue = open();
      const { key } = golden;
      const document = documentIn(queue.name, golden);
      if (await rowOf(database, key)) await deleteRow(database, key);
      await insertRow(database, {
        key,
        queue: queue.name,
        document,
        status: golden.status,
        scheduled: golden.scheduled,
        // On Redis, a key whose time is over is gone.
        expire_at:
          onRedis && golden.expireAt !== null ? (await serverSeconds(database)) + 60 : golden.expireAt,
      });
      const job = await queue.job(key);
      expect(job?.toDocument()).toEqual(JSON.parse(document));
      expect(pythonComplaints(JSON.stringify(job?.toDocument()), queue.name)).toEqual([]);
    },
  );
});

describe("lists and counts", () => {
  it("P-32: counts() returns the number of jobs in every state; count() returns SAQ's three counts", async () => {
    const queue = open();
    expect(await queue.counts()).toEqual({
      queued: 0,
      scheduled: 0,
      active: 0,
      aborting: 0,
      aborted: 0,
      failed: 0,
      complete: 0,
    });
    await populate(queue);
    expect(await queue.counts()).toEqual({
      queued: 1,
      scheduled: 1,
      active: 1,
      aborting: 1,
      aborted: 1,
      failed: 1,
      complete: 1,
    });
    expect(await queue.count("queued")).toBe(1);
    expect(await queue.count("active")).toBe(1);
    expect(await queue.count("incomplete")).toBe(3);
    // @ts-expect-error no such count
    await expect(queue.count("done")).rejects.toThrow(
      'count takes "queued", "active" or "incomplete", got "done"',
    );
  });

  it("list() returns the newest jobs first, by status and in pages; it shows unreadable rows by their columns", async () => {
    const queue = open();
    const jobs = await Promise.all(Array.from({ length: 5 }, (_, n) => queue.enqueue("hello", { n })));
    const newest = jobs.map(({ key }) => key).toReversed();
    expect((await queue.list()).map(({ key }) => key)).toEqual(newest);
    expect((await queue.list({ offset: 1, limit: 2 })).map(({ key }) => key)).toEqual(newest.slice(1, 3));
    await claim(queue, { limit: 1 });
    expect((await queue.list({ statuses: ["active"] })).map(({ key }) => key)).toEqual([jobs[0]?.key]);
    expect(await queue.list({ statuses: ["complete"] })).toEqual([]);
    // On Redis, a document that nobody has set aside is in no list.
    if (onRedis) return;
    await insertRow(database, { key: "zz-poison", queue: queue.name, document: "{", status: "failed" });
    expect((await queue.list({ limit: 1 }))[0]).toMatchObject({
      key: "zz-poison",
      function: "(unreadable)",
      status: "failed",
      error: "The stored document is not a SAQ job; it is kept unchanged",
    });
  });

  it("T-12: jobs of one millisecond are sorted by their generated keys, whatever their statuses are", async () => {
    const queue = open();
    const first = await queue.enqueue("hello");
    const second = await queue.enqueue("hello");
    for (const { key } of [first, second]) {
      const document = JSON.stringify({
        ...JSON.parse((await rowOf(database, key))?.text ?? ""),
        queued: first.queued,
        status: "queued",
      });
      await editRow(database, key, { document });
    }
    await claim(queue, { limit: 2 });
    await queue.abort(second.key);
    expect((await queue.list()).map(({ key, status }) => [key, status])).toEqual([
      [second.key, "aborting"],
      [first.key, "active"],
    ]);
  });

  it("P-33, D-72, T-12: info() returns SAQ's five fields, and jobs only on request", async () => {
    const queue = open({ metadata: { region: "eu" } });
    const keys = await populate(queue);
    // This worker must leave the jobs alone.
    const other = openQueue(database, tasks, {
      name: queue.name,
      metadata: { region: "eu" },
      ...(can("priorities") ? { priorities: [9, 9] } : {}),
    });
    if (!can("priorities")) jest.spyOn(other.broker, "claim").mockResolvedValue({ jobs: [], more: false });
    const { worker } = await startWorker(other);
    const info = await queue.info();
    expect(info).toMatchObject({ name: queue.name, queued: 1, active: 1, scheduled: 1, jobs: [] });
    expect(info.workers).toEqual({
      [worker.workerId]: {
        stats: { complete: 0, failed: 0, retried: 0, aborted: 0, uptime: expect.any(Number) },
        metadata: { region: "eu" },
        queue_key: queue.name,
      },
    });
    const withJobs = await queue.info({ jobs: true });
    expect(withJobs.jobs.map(({ key }) => key)).toEqual([
      keys.queued,
      keys.scheduled,
      keys.aborting,
      keys.active,
    ]);
    for (const job of withJobs.jobs) expect(pythonComplaints(JSON.stringify(job), queue.name)).toEqual([]);
    expect((await queue.info({ jobs: true, offset: 1, limit: 1 })).jobs).toHaveLength(1);
    expect((await queue.info({ jobs: true, statuses: ["failed"] })).jobs.map(({ key }) => key)).toEqual([
      keys.failed,
    ]);
  });

  it("P-34, T-12: workers() returns only the workers of this queue, until their rows expire", async () => {
    const [queue, other] = [open(), open()];
    await queue.connect();
    const stats = { complete: 1, failed: 2, retried: 3, aborted: 4, uptime: 5 };
    const row = { workerId: "w1", stats, metadata: null, queueKey: queue.name };
    await queue.broker.saveWorker(row, 60);
    expect(await queue.workers()).toEqual([row]);
    expect(await other.workers()).toEqual([]);
    await database.stored.expireWorker(queue.name, "w1");
    expect(await queue.workers()).toEqual([]);
    await queue.broker.saveWorker({ ...row, stats: { ...stats, complete: 2 } }, 60);
    expect((await queue.workers())[0]?.stats.complete).toBe(2);
    await queue.broker.removeWorker("w1");
    expect(await workerRow(database, queue, "w1")).toBeUndefined();
  });
});

describe("connecting and closing", () => {
  it("D-16: every call connects by itself", async () => {
    expect(await open().count("queued")).toBe(0);
    expect(await open().job("unknown")).toBeNull();
    expect(await open().abort("unknown")).toBeNull();
    expect(await open().list()).toEqual([]);
    expect(await open().workers()).toEqual([]);
  });

  it("P-7, T-41: connect and close may be called twice; a closed queue rejects calls with queue_closed", async () => {
    const queue = open();
    await Promise.all([queue.connect(), queue.connect()]);
    await queue.connect();
    await Promise.all([queue.close(), queue.close()]);
    await queue.close();
    await expect(queue.enqueue("hello")).rejects.toMatchObject({
      code: "queue_closed",
      message: "The queue was closed and cannot be used again",
    });
  });

  it("close completes the calls that are in progress", async () => {
    const queue = open();
    await queue.connect();
    const enqueued = queue.broker.enqueue({
      key: "last-words",
      document: `{"function":"hello","queue":"${queue.name}","key":"last-words","queued":1,"status":"queued"}`,
      priority: 0,
      groupKey: null,
      scheduled: 0,
      keyed: false,
      shortLived: false,
    });
    await new Promise(setImmediate);
    await queue.close();
    expect(await enqueued).toEqual({ stored: true });
    expect(await rowOf(database, "last-words")).toMatchObject({ status: "queued" });
  });

  itOnTables("a call rejects when the database does not exist, and the next call tries again", async () => {
    const url = new URL(database.url);
    url.pathname = "/no_such_database";
    const queue = openQueue({ url: url.href }, tasks);
    await expect(queue.connect()).rejects.toMatchObject({ code: "3D000" });
    await expect(queue.enqueue("hello")).rejects.toMatchObject({ code: "3D000" });
  });
});
