/** Connections that are terminated or fall silent, and the number of connections. */
import { afterAll, describe, expect, it, jest } from "@jest/globals";
import pg from "pg";
import type { Job } from "../../../templates/backend/saq/index.js";
import { endAllWorkers, eventually, quickPickup, WorkerProcess } from "../support/processes/child.js";
import { newDatabase, type TestDatabase } from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";
import { type DatabaseProxy, openProxy } from "../support/processes/proxy.js";

jest.setTimeout(600_000);

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** The connections of the engine to this database. */
const engines = "from pg_stat_activity where datname = current_database() and application_name = 'saq'";

interface Stage {
  database: TestDatabase;
  /** The worker connects to the database through this proxy; the test connects directly. */
  proxy: DatabaseProxy;
  queue: ReturnType<typeof openQueue>["queue"];
  close(): Promise<void>;
}

/** Each test has a database of its own and mostly waits, so several tests run concurrently. */
const staged = (play: (stage: Stage) => Promise<void>) => async () => {
  const database = await newDatabase("connections");
  const proxy = await openProxy(database.url);
  const { queue, close } = openQueue(database.url);
  try {
    await queue.connect();
    await play({ database, proxy, queue, close });
  } finally {
    await proxy.close();
    await close();
    await database.drop();
  }
};

describe("connections that fail", () => {
  afterAll(endAllWorkers);

  const complete = (job: Job) =>
    eventually(`${job.key} is complete`, async () => (await job.refresh()).status === "complete");

  const expectQuickPickup = async ({ queue }: Stage) => {
    await quickPickup(async () => {
      const job = await queue.enqueue("record");
      await complete(job);
      return job.started - job.queued;
    });
  };

  it.concurrent(
    "D-5: no job is lost or run twice while all connections are terminated again and again",
    staged(async (stage) => {
      const { database, queue } = stage;
      const worker = await WorkerProcess.start({ url: database.url });
      const jobs = await queue.enqueueMany(
        Array.from({ length: 1_500 }, (_, index) => ({
          task: "nap",
          payload: { ms: 5 },
          // Every third job has a group key: grouped jobs are claimed in transactions and statements of their own.
          ...(index % 3 === 0 ? { groupKey: `group-${index % 12}` } : {}),
        })),
      );
      let storms = 0;
      while ((await queue.count("incomplete")) > 0) {
        await database.query(`select pg_terminate_backend(pid) ${engines}`);
        storms++;
        await pause(150);
        if (storms > 40) break;
      }
      expect(storms).toBeGreaterThan(5);
      await eventually("every job has ended", async () => (await queue.count("incomplete")) === 0);
      expect(await queue.counts()).toMatchObject({ complete: jobs.length, active: 0, failed: 0, aborted: 0 });
      // A job of a claim that was cut off is returned to the queue before it runs, and a result is held until it is
      // recorded. So each job runs once.
      const [{ runs } = { runs: 0 }] = await database.query<{ runs: number }>(
        "select count(*)::int as runs from runs",
      );
      expect(runs).toBe(jobs.length);
      await expectQuickPickup(stage);
      expect((await worker.stop()).code).toBe(0);
    }),
  );

  it.concurrent(
    "D-5: jobs of a claim whose response was lost are requeued without using an attempt",
    staged(async (stage) => {
      const { database, queue, proxy } = stage;
      const worker = await WorkerProcess.start({ url: proxy.url, runsUrl: database.url });
      await database.query(`
      create sequence claims;
      create function slow_first_claim() returns trigger language plpgsql as $$
        begin if nextval('claims') <= 3 then perform pg_sleep(1); end if; return new; end $$;
      create trigger slow_first_claim before update of status on saq_jobs for each row
        when (old.status = 'queued' and new.status = 'active') execute function slow_first_claim();`);
      const jobs = await queue.enqueueMany(
        Array.from({ length: 3 }, () => ({ task: "record", payload: undefined })),
      );
      await eventually("the claim is under way", async () => {
        const rows = await database.query(`select query ${engines} and wait_event = 'PgSleep'`);
        return rows.length > 0;
      });
      proxy.cut();
      for (const job of jobs) expect(await complete(job as Job)).toBe(true);
      expect(await database.runs()).toHaveLength(3);
      for (const job of jobs) expect(job).toMatchObject({ attempts: 1, meta: {} });
      await worker.stop();
    }),
  );

  it.concurrent(
    "P-22: a worker that loses its LISTEN connection continues, reconnects and takes its liveness lock again",
    staged(async (stage) => {
      const { database, queue } = stage;
      const worker = await WorkerProcess.start({ url: database.url });
      const held =
        "select pid from pg_locks where locktype = 'advisory' and classid = 21314 and database = (select oid from pg_database where datname = current_database()) and granted";
      const [before] = await database.query<{ pid: number }>(held);
      const { key } = await queue.enqueue("nap", { ms: 2_000 });
      await eventually("it runs", async () => (await database.runs(key)).length === 1);
      await database.query("select pg_terminate_backend($1)", [before?.pid]);
      await worker.said("listening connection restored");
      const [after] = await database.query<{ pid: number }>(held);
      expect(after?.pid).not.toBe(before?.pid);
      await eventually("it is complete", async () => (await database.document(key)).status === "complete");
      expect(await database.runs(key)).toHaveLength(1);
      await expectQuickPickup(stage);
      await worker.stop();
    }),
  );

  it.concurrent(
    "P-22: the probe detects silent connections, although the server still holds them",
    staged(async (stage) => {
      const { database, queue, proxy } = stage;
      const worker = await WorkerProcess.start({ url: proxy.url, runsUrl: database.url });
      proxy.freeze();
      await worker.said("listening connection lost");
      await worker.said("listening connection restored");
      // Statements that were already sent time out later than the probe. Jobs are run again after these timeouts.
      const job = await queue.enqueue("record");
      await complete(job);
      await expectQuickPickup(stage);
      const { code, ms } = await worker.stop();
      expect(code).toBe(0);
      // Less than the grace period of 10 s that a running job would get.
      expect(ms).toBeLessThan(9_500);
    }),
  );

  it.concurrent(
    "a worker whose connections are all silent records its results before other workers sweep its jobs",
    staged(async (stage) => {
      const { database, queue, proxy } = stage;
      const timers = { sweep: 1 };
      const sweeper = await WorkerProcess.start({ url: database.url, priorities: [7, 7], timers });
      const worker = await WorkerProcess.start({
        url: proxy.url,
        runsUrl: database.url,
        priorities: [0, 0],
        timers: { sweep: 1_000 },
      });
      // A sweeper judges no worker before it has reached the database for 12 s. So the test waits until it sweeps a
      // stuck job.
      await database.query(
        `insert into saq_jobs (key, job, queue, status, scheduled) values ('stuck', convert_to(jsonb_build_object(
           'function', 'nap', 'queue', 'default', 'key', 'stuck', 'status', 'active', 'timeout', 1, 'retries', 1,
           'attempts', 1, 'worker_id', $1::text, 'started', 1000 * floor(extract(epoch from now()) - 3600))::text, 'UTF8'),
           'default', 'active', 0)`,
        [sweeper.workerId],
      );
      await eventually(
        "it sweeps",
        async () => (await database.document("stuck")).status === "aborted",
        60_000,
      );
      const jobs = await queue.enqueueMany(
        Array.from({ length: 10 }, () => ({ task: "nap", payload: { ms: 2_000 }, timeout: 8 })),
      );
      await eventually("all run", async () => (await database.runs()).length === jobs.length);
      proxy.freeze();
      await eventually("all have ended", async () => (await queue.count("incomplete")) === 0, 60_000);
      for (const job of jobs) expect(await job?.refresh()).toMatchObject({ status: "complete", attempts: 1 });
      expect(await database.runs()).toHaveLength(jobs.length);
      // Other workers see by its advisory lock that this worker lives. It holds the lock again on a new connection.
      await worker.said("listening connection restored", 30_000);
      await expectQuickPickup(stage);
      await Promise.all([worker.stop(), sweeper.stop()]);
    }),
  );

  it.concurrent(
    "a call whose connections are all silent returns within 25 s, on a new connection",
    staged(async ({ database, proxy }) => {
      const caller = openQueue(proxy.url);
      await caller.queue.connect();
      // The pool does not know that its idle connections are dead. It notices that only when it uses them.
      proxy.freeze();
      const began = performance.now();
      expect(await caller.queue.counts()).toMatchObject({ queued: 0 });
      // A read has a timeout of 30 s, and a rollback on the same connection would wait for another 30 s.
      expect(performance.now() - began).toBeLessThan(25_000);
      await caller.close();
      expect(await database.query(`select pid ${engines} and state = 'idle in transaction'`)).toEqual([]);
    }),
  );

  it.concurrent(
    "a call waits for a statement that the server still executes",
    staged(async ({ database, proxy }) => {
      const caller = openQueue(proxy.url);
      const job = await caller.queue.enqueue("record");
      const locker = new pg.Client({ connectionString: database.url, application_name: "observer" });
      await locker.connect();
      await locker.query("begin; lock table saq_jobs in access exclusive mode");
      const waiting = caller.queue.job(job.key);
      // Longer than it takes to detect a dead connection.
      await pause(7_000);
      await locker.query("rollback");
      expect(await waiting).toMatchObject({ key: job.key });
      await locker.end();
      await caller.close();
    }),
  );

  it.concurrent(
    "a worker process holds at most three connections",
    staged(async (stage) => {
      const { database, close } = stage;
      await close();
      const worker = await WorkerProcess.start({ url: database.url });
      const most = await mostConnections(stage, worker);
      expect(most).toBeLessThanOrEqual(3);
      await worker.stop();
    }),
  );

  it.concurrent(
    "a worker with pollInterval uses no LISTEN, no lock and at most maxSize connections",
    staged(async (stage) => {
      const { database, close } = stage;
      await close();
      const worker = await WorkerProcess.start({ url: database.url, pollInterval: 0.2, maxSize: 2 });
      const most = await mostConnections(stage, worker);
      expect(most).toBeLessThanOrEqual(2);
      expect(await database.query(`select query ${engines} and query ilike 'listen%'`)).toEqual([]);
      expect(
        await database.query(
          "select * from pg_locks where locktype = 'advisory' and classid = 21314 and database = (select oid from pg_database where datname = current_database())",
        ),
      ).toEqual([]);
      expect(worker.workerId).not.toMatch(/^ts-/);
      const { ms } = await worker.stop();
      expect(ms).toBeLessThan(9_500);
    }),
  );

  /** Returns the maximum number of connections while jobs with and without a group run and one job is aborted. */
  async function mostConnections({ database }: Stage, worker: WorkerProcess): Promise<number> {
    const other = openQueue(`${database.url}?application_name=observer`);
    const jobs = await other.queue.enqueueMany(
      Array.from({ length: 600 }, (_, index) => ({
        task: "nap",
        payload: { ms: 10 },
        ...(index % 2 === 0 ? { groupKey: `group-${index % 20}` } : {}),
      })),
    );
    const slow = await other.queue.enqueue("nap", { ms: 60_000 });
    await other.close();
    let most = 0;
    let asked = false;
    await eventually("all are done", async () => {
      const [{ count } = { count: 0 }] = await database.query<{ count: number }>(
        `select count(*)::int as count ${engines}`,
      );
      most = Math.max(most, count);
      const rows = await database.query<{ key: string; status: string }>("select key, status from saq_jobs");
      if (!asked && rows.some(({ key, status }) => key === slow.key && status === "active")) {
        asked = true;
        await database.query("update saq_jobs set status = 'aborting' where key = $1", [slow.key]);
      }
      return (
        rows.filter(({ status }) => status === "complete" || status === "aborted").length === jobs.length + 1
      );
    });
    await worker.said("Aborted nap");
    return most;
  }
});
