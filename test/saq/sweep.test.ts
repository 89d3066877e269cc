/** Who is called stuck or orphaned, by which clock, and after how long a look. */
import { afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import type { Queue } from "../../templates/backend/saq/queue/queue.js";
import { openProxy } from "./cuttable-proxy.js";
import { type SteppedClock, stepClock } from "./stepped-clock.js";
import { claim, insertRow, openQueue, rowOf, settle, settlement, useDatabase } from "./support.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (from: { url: string } = database, options: object = {}): Hello =>
  openQueue(from, tasks, options);
const limits = { graceSeconds: 5, lostLimit: 3, lookEvery: 2, failedTtl: 600 };

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});
afterEach(() => {
  jest.restoreAllMocks();
});

/** Looks as a worker does, every 2 s, for that long. */
async function see(queue: Hello, clock: SteppedClock, seconds: number): Promise<void> {
  for (let passed = 0; passed < seconds; passed += 2) {
    clock.pass(2);
    await queue.broker.sweepLost(limits);
  }
}

/** A claimed job that started that long ago. */
async function running(queue: Hello, { timeout, agoSeconds }: { timeout: number; agoSeconds: number }) {
  const { key } = await queue.enqueue("hello", {}, { timeout });
  const [claimed] = await claim(queue);
  if (claimed?.key !== key) throw new Error("the job was not claimed");
  await database.query(
    `update saq_jobs set job = convert_to(jsonb_set(convert_from(job, 'UTF8')::jsonb, '{started}',
       to_jsonb(floor((extract(epoch from clock_timestamp()) - $2) * 1000)))::text, 'UTF8') where key = $1`,
    [key, agoSeconds],
  );
  return claimed;
}

describe("a stuck job", () => {
  it("5.2: is swept after 12 s of sight, not at the first look", async () => {
    const clock = stepClock();
    const queue = open();
    const { key } = await running(queue, { timeout: 1, agoSeconds: 100 });
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    await see(queue, clock, 10);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    await see(queue, clock, 2);
    expect(await queue.broker.sweepStuck(limits)).toEqual([key]);
    expect(await rowOf(database, key)).toMatchObject({ status: "aborted" });
  });

  it("5.2: is left alone after a gap, until the sight is long again", async () => {
    const clock = stepClock();
    const queue = open();
    await queue.connect();
    await see(queue, clock, 20);
    const { key } = await running(queue, { timeout: 1, agoSeconds: 100 });
    clock.pass(28);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    // A machine that slept: only the clock that people set has gone on.
    await see(queue, clock, 10);
    clock.set(3_600);
    await see(queue, clock, 10);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    await see(queue, clock, 4);
    expect(await queue.broker.sweepStuck(limits)).toEqual([key]);
  });

  it("5.2: ten results held through an outage are recorded, though the first sweep is faster", async () => {
    const clock = stepClock();
    const proxy = await openProxy(database);
    const queue = open(proxy);
    await queue.connect();
    const jobs = [];
    for (let n = 0; n < 10; n++) jobs.push(await running(queue, { timeout: 1, agoSeconds: 100 }));
    await see(queue, clock, 20);
    proxy.refuse();
    const settled = Promise.all(jobs.map((job) => settle(queue, settlement(job, "complete"))));
    const back = Date.now() + 6_000;
    while (Date.now() < back) {
      await expect(queue.broker.sweepLost(limits)).rejects.toThrow();
      await new Promise((resolve) => setTimeout(resolve, 1_500));
    }
    proxy.admit();
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    expect(await settled).toEqual(jobs.map(() => "applied"));
    for (const { key } of jobs) expect((await rowOf(database, key))?.status).toBe("complete");
  }, 30_000);

  it("5.2: the database's clock says who is stuck, whatever this process's clock jumps to", async () => {
    const clock = stepClock();
    const queue = open();
    const healthy = await running(queue, { timeout: 30, agoSeconds: 0 });
    await see(queue, clock, 20);
    clock.set(60);
    await see(queue, clock, 20);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    expect((await rowOf(database, healthy.key))?.status).toBe("active");
  });

  it("5.2: one that somebody's transaction holds keeps the sweep from no other", async () => {
    const clock = stepClock();
    const queue = open();
    const held = await running(queue, { timeout: 1, agoSeconds: 100 });
    const free = await running(queue, { timeout: 1, agoSeconds: 100 });
    await see(queue, clock, 14);
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [held.key]);
    const began = process.hrtime.bigint();
    expect(await queue.broker.sweepStuck(limits)).toEqual([free.key]);
    expect(Number(process.hrtime.bigint() - began) / 1e6).toBeLessThan(2_000);
    await other.query("rollback");
    expect(await queue.broker.sweepStuck(limits)).toEqual([held.key]);
  });
});

describe("a job without a living worker", () => {
  const pythonsClaim = async (queue: Hello, key: string) =>
    insertRow(database, {
      key,
      queue: queue.name,
      status: "active",
      document: JSON.stringify({ function: "hello", queue: queue.name, key, status: "active", timeout: 0 }),
    });

  it("D-10: each claim of Python's that names no worker yet has 300 s of its own", async () => {
    const clock = stepClock();
    const queue = open();
    await queue.connect();
    await pythonsClaim(queue, "early");
    for (let passed = 0; passed < 320; passed += 4) {
      clock.pass(4);
      if (passed === 280) await pythonsClaim(queue, "late");
      const swept = await queue.broker.sweepStuck(limits);
      if (swept.length > 0) {
        expect(swept).toEqual(["early"]);
        expect(passed).toBeGreaterThanOrEqual(300);
        break;
      }
    }
    expect((await rowOf(database, "early"))?.status).toBe("queued");
    // The same key, claimed anew, is another claim.
    await database.query(
      "update saq_jobs set status = 'active', lock_key = lock_key + 1 where key = 'early'",
    );
    clock.pass(4);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    expect((await rowOf(database, "late"))?.status).toBe("active");
  });
});

describe("rows past their time", () => {
  it("P-32: one that somebody's transaction holds is left for later, and nothing waits for it", async () => {
    const queue = open();
    await queue.connect();
    const document = (key: string) => JSON.stringify({ function: "hello", queue: queue.name, key });
    for (const key of ["held", "free"])
      await insertRow(database, {
        key,
        queue: queue.name,
        document: document(key),
        status: "complete",
        expire_at: 5,
      });
    for (const id of ["held", "free"])
      await database.query(
        "insert into saq_stats (worker_id, expire_at, queue_key) values ($1, 5, 'other')",
        [id],
      );
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = 'held' for update");
    await other.query("select 1 from saq_stats where worker_id = 'held' for update");
    const began = performance.now();
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    expect(performance.now() - began).toBeLessThan(2_000);
    const left = async () =>
      (
        await database.query<{ name: string }>(
          `select key as name from saq_jobs where expire_at = 5 union all
           select worker_id from saq_stats where expire_at = 5`,
        )
      ).map(({ name }) => name);
    expect(await left()).toEqual(["held", "held"]);
    expect(
      await database.query(
        "select query from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
      ),
    ).toEqual([]);
    await other.query("rollback");
    await queue.broker.sweepStuck(limits);
    expect(await left()).toEqual([]);
  });
});
