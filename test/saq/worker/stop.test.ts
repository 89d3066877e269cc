/** Stopping worker processes (W-16, W-17, W-22), with real processes and real signals. */
import { afterAll, beforeAll, describe, expect, it, jest } from "@jest/globals";
import {
  endAllWorkers,
  eventually,
  WorkerProcess,
  type WorkerProcessOptions,
} from "../support/processes/child.js";
import { newDatabase, type TestDatabase } from "../support/processes/database.js";
import { loadRedisClient, openQueue } from "../support/processes/enqueuer.js";
import { itOnPostgres, onRedis } from "../support/test-broker.js";

jest.setTimeout(600_000);

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

interface Stage {
  database: TestDatabase;
  queue: ReturnType<typeof openQueue>["queue"];
  start(options?: Partial<WorkerProcessOptions>): Promise<WorkerProcess>;
  running(key: string): Promise<unknown>;
}

/** Each test has its own database and waits more than it works, so that several tests run at the same time. */
const staged = (play: (stage: Stage) => Promise<void>) => async () => {
  const database = await newDatabase("stopping");
  const { pollInterval = 0 } = database.worker;
  const { queue, close } = openQueue(database.url, { pollInterval });
  try {
    await queue.connect();
    await play({
      database,
      queue,
      start: (options) => WorkerProcess.start({ ...database.worker, concurrency: 2, ...options }),
      running: (key) => eventually(`${key} runs`, async () => (await database.runs(key)).length === 1),
    });
  } finally {
    await close();
    await database.drop();
  }
};

describe("a worker process", () => {
  beforeAll(async () => {
    if (onRedis) await loadRedisClient();
  });
  afterAll(endAllWorkers);

  itOnPostgres.concurrent(
    "W-17: ends at once when it is stopped while idle, and leaves no row, lock or session",
    staged(async ({ database, start }) => {
      const connected = async () =>
        (
          await database.query<{ pid: number }>(
            "select pid from pg_stat_activity where datname = current_database() and application_name = 'saq'",
          )
        ).map(({ pid }) => pid);
      const own = await connected();
      const worker = await start();
      const ofWorker = (await connected()).filter((pid) => !own.includes(pid));
      expect(ofWorker).not.toEqual([]);
      const lock = await database.query(
        "select pid from pg_locks where locktype = 'advisory' and classid = 21314 and database = (select oid from pg_database where datname = current_database())",
      );
      expect(lock).toHaveLength(1);
      expect(await database.query("select worker_id from saq_stats")).toEqual([
        { worker_id: worker.workerId },
      ]);
      const { code, ms } = await worker.stop();
      expect(code).toBe(0);
      // It takes 0.2 s on an idle machine. The grace period of a running job would be 10 s.
      expect(ms).toBeLessThan(9_500);
      expect(
        await database.query(
          "select * from pg_locks where locktype = 'advisory' and classid = 21314 and database = (select oid from pg_database where datname = current_database())",
        ),
      ).toEqual([]);
      expect(await database.query("select * from saq_stats")).toEqual([]);
      await eventually("the server has ended the worker's sessions", async () =>
        (await connected()).every((pid) => !ofWorker.includes(pid)),
      );
    }),
  );

  it.concurrent(
    "W-17: ends at once when it is stopped while idle, and leaves neither its row nor a connection",
    staged(async ({ database, start }) => {
      const connections = async () => (await database.stored.connections()).length;
      const before = await connections();
      const worker = await start();
      expect(await database.stored.worker("default", worker.workerId)).toMatchObject({ metadata: null });
      expect(await connections()).toBeGreaterThan(before);
      const { code, ms } = await worker.stop();
      expect(code).toBe(0);
      // It takes 0.2 s on an idle machine. The grace period of a running job would be 10 s.
      expect(ms).toBeLessThan(9_500);
      expect(await database.stored.worker("default", worker.workerId)).toBeUndefined();
      await eventually("the connections are closed", async () => (await connections()) === before);
    }),
  );

  it.concurrent(
    "W-17: waits for its running job when it is stopped, and claims no other job (D-45)",
    staged(async ({ database, queue, start, running }) => {
      const worker = await start();
      const { key } = await queue.enqueue("nap", { ms: 1_500 });
      await running(key);
      worker.signal("SIGTERM");
      await worker.said("Worker shutting down");
      const later = await queue.enqueue("record");
      const { code } = await worker.exit();
      expect(code).toBe(0);
      expect(await database.document(key)).toMatchObject({ status: "complete", attempts: 1 });
      expect((await database.document(later.key)).status).toBe("queued");
      expect(await database.runs(later.key)).toEqual([]);
    }),
  );

  it.concurrent(
    "W-16: interrupts a job after the grace period, and requeues it without counting the attempt (D-47)",
    staged(async ({ database, queue, start, running }) => {
      const worker = await start({ shutdownGracePeriod: 0.5 });
      const { key } = await queue.enqueue("nap", { ms: 60_000 });
      await running(key);
      const { code, ms } = await worker.stop();
      expect(code).toBe(0);
      expect(ms).toBeLessThan(20_000);
      expect(await database.runs(key)).toMatchObject([{ signal: "ShutdownError" }]);
      const document = await database.document(key);
      expect(document).toMatchObject({ status: "queued", error: "cancelled", meta: { cancellations: 1 } });
      expect(document.attempts).toBeUndefined();
    }),
  );

  it.concurrent(
    "D-44: ends at the hard deadline even if a task ignores its signal",
    staged(async ({ database, queue, start, running }) => {
      const worker = await start({ shutdownGracePeriod: 0.5, cancellationHardDeadline: 1 });
      const { key } = await queue.enqueue("stubborn", { ms: 60_000 });
      await running(key);
      const { code, ms } = await worker.stop();
      expect(code).toBe(0);
      expect(worker.lines.map(({ message }) => message)).toEqual(
        expect.arrayContaining([
          "Some tasks did not finish within the shutdown grace period, requesting cancellation",
          "Function 'stubborn' did not finish cancellation in time, it may be stuck or blocked",
          "Some tasks did not finish cancellation in time, they may be stuck or blocked",
        ]),
      );
      expect(ms).toBeGreaterThan(1_400);
      expect(ms).toBeLessThan(20_000);
      expect(await database.document(key)).toMatchObject({ status: "queued", meta: { cancellations: 1 } });
    }),
  );

  it.concurrent(
    "D-5: returns prefetched jobs to the queue at once and unchanged when it is stopped",
    staged(async ({ database, queue, start, running }) => {
      const worker = await start({ concurrency: 1, shutdownGracePeriod: 60 });
      // Short jobs come first, so that the worker fetches ahead. Then a long job runs in front of a full buffer.
      await queue.enqueueMany(Array.from({ length: 300 }, () => ({ task: "record", payload: undefined })));
      const { key } = await queue.enqueue("nap", { ms: 8_000 });
      await queue.enqueueMany(Array.from({ length: 300 }, () => ({ task: "record", payload: undefined })));
      await running(key);
      worker.signal("SIGTERM");
      await eventually("only one is active", async () => (await queue.counts()).active === 1);
      expect((await worker.exit()).code).toBe(0);
      const rows = await database.stored.rows("default");
      const left = rows.filter(({ status }) => status === "queued");
      expect(left.length).toBeGreaterThan(0);
      const documents = left.map(({ text }) => JSON.parse(text) as object);
      for (const document of documents) {
        expect(document).not.toHaveProperty("attempts");
        expect(document).not.toHaveProperty("started");
        expect(document).not.toHaveProperty("worker_id");
      }
      expect(await database.runs()).toHaveLength(601 - left.length);
    }),
  );

  it.concurrent(
    "W-22: counts signals within 2 s as one, and ends the grace period at a later signal",
    staged(async ({ database, queue, start, running }) => {
      const worker = await start({ shutdownGracePeriod: 30 });
      const { key } = await queue.enqueue("nap", { ms: 60_000 });
      await running(key);
      worker.signal("SIGINT");
      worker.signal("SIGTERM");
      await worker.said("Worker shutting down");
      worker.signal("SIGINT");
      await pause(4_000);
      expect((await database.document(key)).status).toBe("active");
      worker.signal("SIGINT");
      const { code, ms } = await worker.exit();
      expect(code).toBe(0);
      expect(ms).toBeLessThan(20_000);
      expect((await database.document(key)).status).toBe("queued");
    }),
  );

  it.concurrent(
    "W-22: keeps the hard deadline after a third signal",
    staged(async ({ database, queue, start, running }) => {
      const worker = await start({ shutdownGracePeriod: 30, cancellationHardDeadline: 2 });
      const { key } = await queue.enqueue("stubborn", { ms: 60_000 });
      await running(key);
      worker.signal("SIGTERM");
      await worker.said("Worker shutting down");
      await pause(4_000);
      worker.signal("SIGTERM");
      await worker.said("requesting cancellation");
      worker.signal("SIGTERM");
      expect((await worker.exit()).code).toBe(0);
      expect(await database.document(key)).toMatchObject({ status: "queued", meta: { cancellations: 1 } });
    }),
  );

  it.concurrent(
    "has a grace period of 1 s under a reloader",
    staged(async ({ database, queue, start, running }) => {
      const worker = await start({ reloader: true, shutdownGracePeriod: 30 });
      const { key } = await queue.enqueue("nap", { ms: 60_000 });
      await running(key);
      const { code, ms } = await worker.stop();
      expect(code).toBe(0);
      expect(ms).toBeGreaterThan(900);
      expect(ms).toBeLessThan(20_000);
      expect((await database.document(key)).status).toBe("queued");
    }),
  );

  it.concurrent(
    "W-21: logs an unhandled rejection and continues",
    staged(async ({ database, queue, start }) => {
      const worker = await start();
      const { key } = await queue.enqueue("strayRejection");
      const line = await worker.said("unhandled promise rejection");
      expect(line.err).toContain("stray rejection");
      expect(line.jobs).toEqual([key]);
      await eventually("it is complete", async () => (await database.document(key)).status === "complete");
      expect((await worker.stop()).code).toBe(0);
    }),
  );

  it.concurrent(
    "W-21: ends with exit code 1 after an uncaught error, and its jobs count as lost",
    staged(async ({ database, queue, start, running }) => {
      const worker = await start({ shutdownGracePeriod: 30 });
      const beside = await queue.enqueue("nap", { ms: 60_000 });
      await running(beside.key);
      const { key } = await queue.enqueue("strayThrow");
      const line = await worker.said("uncaught error: the worker stops");
      expect(line.err).toContain("stray throw");
      expect(line.jobs).toEqual([beside.key, key]);
      expect((await worker.exit()).code).toBe(1);
      for (const job of [beside.key, key]) {
        expect(await database.document(job)).toMatchObject({ status: "queued", meta: { lost: 1 } });
      }
    }),
  );

  it.concurrent(
    "continues and loses no job if its logger throws at every line",
    staged(async ({ database, queue }) => {
      const worker = new WorkerProcess({ ...database.worker, throwingLogger: true });
      const jobs = await queue.enqueueMany(
        Array.from({ length: 50 }, () => ({ task: "record", payload: undefined })),
      );
      await eventually("all are complete", async () => (await queue.counts()).complete === jobs.length);
      const { key } = await queue.enqueue("nap", { ms: 60_000 }, { timeout: 0.2 });
      await eventually("it timed out", async () => (await database.document(key)).status === "failed");
      const { code, ms } = await worker.stop();
      expect(code).toBe(0);
      expect(ms).toBeLessThan(20_000);
    }),
  );

  it.concurrent(
    "leaves no claimed job, no row and no lock if it is stopped at any moment of its start",
    staged(async ({ database, queue }) => {
      await queue.enqueueMany(Array.from({ length: 20 }, () => ({ task: "nap", payload: { ms: 300 } })));
      // The stops range from before the worker's first connection to after its first claim.
      for (const wait of [0, 10, 20, 30, 40, 60, 90, 150]) {
        const worker = new WorkerProcess({ ...database.worker });
        await worker.said("loaded");
        await pause(wait);
        expect((await worker.stop()).code).toBe(0);
      }
      const { active, aborting, queued, complete } = await queue.counts();
      expect({ active, aborting, all: queued + complete }).toEqual({ active: 0, aborting: 0, all: 20 });
      expect(await queue.workers()).toEqual([]);
      if (onRedis) return;
      expect(await database.query("select * from saq_stats")).toEqual([]);
      expect(
        await database.query(
          "select * from pg_locks where locktype = 'advisory' and classid = 21314 and database = (select oid from pg_database where datname = current_database())",
        ),
      ).toEqual([]);
    }),
  );
});
