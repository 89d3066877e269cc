/**
 * Claims in trouble, with real worker processes: a worker in poll mode (as behind a pooler) is killed and another one
 * is paused, a table is locked for longer than a claim may take, and rows contain no jobs. The scenarios mostly wait,
 * so they run concurrently.
 */
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import pg from "pg";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase, type TestDatabase } from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";

type Stage = { database: TestDatabase } & ReturnType<typeof openQueue>;

async function scenario<T>(name: string, play: (stage: Stage) => Promise<T>): Promise<T> {
  const database = await newDatabase(name);
  const opened = openQueue(database.url);
  try {
    return await play({ database, ...opened });
  } finally {
    await opened.close();
    await database.drop();
  }
}

/**
 * Two workers in poll mode (as behind a pooler): one is killed, the other is paused until a third has run their jobs.
 */
const withoutLocks = () =>
  scenario("no_locks", async ({ database, queue }) => {
    const options = { url: database.url, pollInterval: 0.5, concurrency: 1 };
    const [killed, still] = await Promise.all([WorkerProcess.start(options), WorkerProcess.start(options)]);
    // Jobs with the default timeout: it ends long before anybody can know that the workers are gone.
    const jobs = await Promise.all([1, 2].map(() => queue.enqueue("nap", { ms: 8_000 })));
    await eventually("both run", async () => (await database.runs()).length === 2);
    killed.signal("SIGKILL");
    still.signal("SIGSTOP");
    const heir = await WorkerProcess.start({ ...options, concurrency: 2 });
    const began = performance.now();
    for (const { key } of jobs)
      await eventually("it runs again", async () => (await database.runs(key)).length === 2);
    const seconds = (performance.now() - began) / 1_000;
    for (const { key } of jobs)
      await eventually("it ends", async () => (await database.document(key)).status === "complete");
    still.signal("SIGCONT");
    await still.said("lost the job");
    const documents = await Promise.all(jobs.map(({ key }) => database.document(key)));
    const ids = [killed.workerId, still.workerId];
    await Promise.all([still.stop(), heir.stop()]);
    return { seconds, documents, ids, heir: heir.pid };
  });

/** A claim waits for the table for longer than other workers wait for a late worker. */
const lateClaim = () =>
  scenario("late_claim", async ({ database, queue }) => {
    const worker = await WorkerProcess.start({ url: database.url, concurrency: 5 });
    const other = new pg.Client({ connectionString: database.url, application_name: "observer" });
    await other.connect();
    await other.query("begin");
    // This lock mode blocks claims, because they change rows. The jobs are enqueued in the same transaction.
    await other.query("lock table saq_jobs in exclusive mode");
    for (let n = 0; n < 5; n++) await queue.enqueue("record", undefined, { key: `late-${n}`, client: other });
    await other.query("select pg_sleep(8)");
    await other.query("commit");
    await other.end();
    await eventually("all have run", async () => (await queue.counts()).complete === 5);
    const documents = await Promise.all([0, 1, 2, 3, 4].map((n) => database.document(`late-${n}`)));
    const runs = (await database.runs()).length;
    await worker.stop();
    return { runs, attempts: documents.map(({ attempts }) => attempts), lines: worker.lines };
  });

const poison = () =>
  scenario("poison", async ({ database, queue }) => {
    const first = await queue.enqueue("record");
    const worker = await WorkerProcess.start({ url: database.url });
    await eventually("it runs", async () => (await database.runs(first.key)).length === 1);
    await database.query(
      `insert into saq_jobs (key, queue, job, status, scheduled)
       select 'poison' || n, 'default', '{', 'queued', 0 from generate_series(1, 3000) n`,
    );
    const began = performance.now();
    const { key } = await queue.enqueue("record");
    await eventually("the job behind them runs", async () => (await database.runs(key)).length === 1);
    const seconds = (performance.now() - began) / 1_000;
    await eventually("all are set aside", async () => (await queue.counts()).failed === 3_000);
    await worker.stop();
    return { seconds };
  });

describe("claims during failures", () => {
  const scenarios = { withoutLocks, lateClaim, poison };
  const outcomes = {} as { [Name in keyof typeof scenarios]: ReturnType<(typeof scenarios)[Name]> };

  beforeAll(() => {
    for (const [name, play] of Object.entries(scenarios)) {
      const outcome = play();
      // The test that awaits the outcome fails. Without this handler an earlier rejection would be unhandled.
      outcome.catch(() => {});
      Object.assign(outcomes, { [name]: outcome });
    }
  });
  afterAll(endAllWorkers);

  it("D-17: without locks, jobs of killed and paused workers run again within 60 s without using an attempt", async () => {
    const { seconds, documents, ids, heir } = await outcomes.withoutLocks;
    for (const id of ids) expect(id).toMatch(/^lease-/);
    expect(seconds).toBeLessThan(60);
    for (const document of documents)
      expect(document).toMatchObject({
        status: "complete",
        attempts: 1,
        meta: { lost: 1 },
        result: { pid: heir },
      });
  }, 600_000);

  it("jobs of a claim that the database executes 8 s late run once", async () => {
    const { runs, attempts } = await outcomes.lateClaim;
    expect(runs).toBe(5);
    expect(attempts).toEqual([1, 1, 1, 1, 1]);
  }, 600_000);

  it("D-3: a job behind 3,000 unreadable rows runs within 20 s", async () => {
    const { seconds } = await outcomes.poison;
    expect(seconds).toBeLessThan(20);
  }, 600_000);
});
