/** Which jobs count as stuck or orphaned, by which clock, and after how long an observation. */
import { afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { livenessOf, newWorkerId } from "../../../templates/backend/saq/storage/worker-ids.js";
import { openProxy } from "../support/cuttable-proxy.js";
import {
  claim,
  insertRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  useDatabase,
} from "../support/scenario.js";
import { type SteppedClock, stepClock } from "../support/stepped-clock.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (from: { url: string } = database, options: object = {}): Hello =>
  openQueue(from, tasks, options);
const limits = { graceSeconds: 5, lostLimit: 3, checkInterval: 2, failedTtl: 600 };

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});
afterEach(() => {
  jest.restoreAllMocks();
});

/** Looks at the database as a worker does, every 2 s, for `seconds` of the stepped clock. */
async function see(queue: Hello, clock: SteppedClock, seconds: number): Promise<void> {
  for (let passed = 0; passed < seconds; passed += 2) {
    clock.pass(2);
    await queue.broker.sweepLost(limits);
  }
}

/** A claimed job that started `agoSeconds` ago. */
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
  it("is swept only after the database has been reachable for 12 s without a gap", async () => {
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

  it("is found by the second sweep when the first had too many rows to read, also in a new process", async () => {
    const clock = stepClock();
    const age = performance.now();
    clock.pass(-age / 1_000);
    const queue = open();
    const count = 1_200;
    await queue.enqueueMany(
      Array.from({ length: count }, () => ({ task: "hello" as const, payload: {}, timeout: 1 })),
    );
    expect(await claim(queue, { limit: count })).toHaveLength(count);
    await database.query(
      `update saq_jobs set job = convert_to(jsonb_set(convert_from(job, 'UTF8')::jsonb, '{started}',
         to_jsonb(1700000000000))::text, 'UTF8') where queue = $1`,
      [queue.name],
    );
    // The first look, which ends nothing yet.
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    await see(queue, clock, 14);
    expect(await queue.broker.sweepStuck(limits)).toHaveLength(count);
  });

  it("is not swept after a gap until the database has been reachable for long enough again", async () => {
    const clock = stepClock();
    const queue = open();
    await queue.connect();
    await see(queue, clock, 20);
    const { key } = await running(queue, { timeout: 1, agoSeconds: 100 });
    clock.pass(28);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    // The machine slept: only the wall clock went on.
    await see(queue, clock, 10);
    clock.set(3_600);
    await see(queue, clock, 10);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    await see(queue, clock, 4);
    expect(await queue.broker.sweepStuck(limits)).toEqual([key]);
  });

  it("ten settlements that wait during an outage are applied, although a sweep runs first", async () => {
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
  }, 600_000);

  it("is found by the database's clock, even when the process's clock jumps", async () => {
    const clock = stepClock();
    const queue = open();
    const healthy = await running(queue, { timeout: 30, agoSeconds: 0 });
    await see(queue, clock, 20);
    clock.set(60);
    await see(queue, clock, 20);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    expect((await rowOf(database, healthy.key))?.status).toBe("active");
  });

  it("does not prevent the sweep of other jobs while another transaction holds its row", async () => {
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
    expect(Number(process.hrtime.bigint() - began) / 1e6).toBeLessThan(4_500);
    await other.query("rollback");
    expect(await queue.broker.sweepStuck(limits)).toEqual([held.key]);
  });
});

describe("a running job whose timeout is changed", () => {
  it("J-20: keeps the timeout that its attempt began with when a shorter timeout is set meanwhile", async () => {
    const clock = stepClock();
    const queue = open();
    const { key } = await running(queue, { timeout: 600, agoSeconds: 100 });
    const job = await queue.job(key);
    expect(await job?.update({ timeout: 1 })).toBe("updated");
    await see(queue, clock, 14);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    expect(await queue.job(key)).toMatchObject({ status: "active", timeout: 1 });
  });
});

describe("a check of the running jobs", () => {
  it("loads no documents, neither to sweep jobs nor to find jobs that are no longer ours", async () => {
    const clock = stepClock();
    const proxy = await openProxy(database);
    const queue = open(proxy);
    await queue.connect();
    const text = "x".repeat(500_000);
    await queue.enqueueMany(
      Array.from({ length: 12 }, () => ({ task: "hello" as const, payload: { text }, timeout: 0 })),
    );
    const claims = await claim(queue, { limit: 12 });
    expect(claims).toHaveLength(12);
    await see(queue, clock, 14);
    const before = proxy.bytesSent;
    for (let look = 0; look < 3; look++) {
      expect(await queue.broker.sweepStuck(limits)).toEqual([]);
      expect(await queue.broker.findInterrupted(claims)).toEqual([]);
    }
    expect(proxy.bytesSent - before).toBeLessThan(text.length);
  }, 600_000);

  it("D-21: finds that Python has taken over a job, although its token is the same", async () => {
    const queue = open();
    const { key } = await queue.enqueue("hello");
    const claims = await claim(queue);
    expect(await queue.broker.findInterrupted(claims)).toEqual([]);
    await database.query(
      `update saq_jobs set job = convert_to((convert_from(job, 'UTF8')::jsonb || '{"worker_id": "python-1"}')::text, 'UTF8')
       where key = $1`,
      [key],
    );
    expect(await queue.broker.findInterrupted(claims)).toEqual([{ key, reason: "lost" }]);
    await database.query("delete from saq_jobs where key = $1", [key]);
    expect(await queue.broker.findInterrupted(claims)).toEqual([{ key, reason: "gone" }]);
  });
});

describe("a job whose row was deleted", () => {
  it("is logged as deleted, not as taken by another worker", async () => {
    let ran = () => {};
    const running = new Promise<void>((resolve) => {
      ran = resolve;
    });
    const wait = (ctx: { signal: AbortSignal }) => {
      ran();
      return new Promise((_, reject) =>
        ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason)),
      );
    };
    const queue = openQueue(database, { wait }, { timers: { abort: 0.1 } });
    await queue.enqueue("wait", undefined, { timeout: 0 });
    const { log } = await startWorker(queue);
    await running;
    await database.query("delete from saq_jobs where queue = $1", [queue.name]);
    const { message } = await log.saw(({ message }) => message.startsWith("lost the job"));
    expect(message).toBe("lost the job, so its end is not recorded: its row was deleted");
  });
});

describe("the worker that owns a job", () => {
  const stats = { complete: 0, failed: 0, retried: 0, aborted: 0, uptime: 0 };
  const ids = { lock: "ts-host-1-0000000a", lease: "lease-host-1-0000000a" };
  const beat = (queue: Hello, workerId: string, graceSeconds?: number) =>
    queue.broker.saveWorker({ workerId, stats, metadata: null, queueKey: queue.name, graceSeconds }, 9);
  const expire = (workerId: string, seconds: number) =>
    database.query(
      "update saq_stats set expire_at = floor(extract(epoch from now()))::bigint - $2::int where worker_id = $1",
      [workerId, seconds],
    );
  /** A job of that worker that started 100 s ago and has a timeout of 1 s. */
  const stuckOf = async (queue: Hello, workerId: string) => {
    const { key } = await queue.enqueue("hello", {}, { timeout: 1 });
    await claim(queue, { workerId });
    await database.query(
      `update saq_jobs set job = convert_to(jsonb_set(convert_from(job, 'UTF8')::jsonb, '{started}',
         to_jsonb(floor((extract(epoch from clock_timestamp()) - 100) * 1000)))::text, 'UTF8') where key = $1`,
      [key],
    );
    return key;
  };

  it("sets how many seconds its job may run beyond the timeout", async () => {
    const clock = stepClock();
    const queue = open();
    await queue.connect();
    await beat(queue, ids.lock, 200);
    const key = await stuckOf(queue, ids.lock);
    await see(queue, clock, 14);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    await beat(queue, ids.lock, 20);
    expect(await queue.broker.sweepStuck(limits)).toEqual([key]);
  });

  it.each(["lock", "lease"] as const)(
    "D-10: the job of a worker that may be dead (%s) does not time out; it runs again when the death is certain",
    async (kind) => {
      const clock = stepClock();
      const queue = open();
      await queue.connect();
      await beat(queue, ids[kind]);
      const key = await stuckOf(queue, ids[kind]);
      await see(queue, clock, 14);
      await expire(ids[kind], 2);
      expect(await queue.broker.sweepStuck(limits)).toEqual([]);
      if (kind === "lease") {
        // A worker with a lock counts as silent 3 s after its row has expired. This one still has its lease, for 21 s.
        await expire(ids.lease, 20);
        await see(queue, clock, 4);
        expect(await queue.broker.sweepStuck(limits)).toEqual([]);
      }
      await expire(ids[kind], 23);
      clock.pass(3);
      expect(await queue.broker.sweepLost(limits)).toEqual([key]);
      const row = await rowOf(database, key);
      expect(row?.status).toBe("queued");
      expect(JSON.parse(row?.text ?? "")).toMatchObject({ meta: { lost: 1 }, error: "worker lost" });
      expect(JSON.parse(row?.text ?? "")).not.toHaveProperty("attempts");
    },
  );

  it("D-10: the job of a worker that has no liveness lock and never had a row runs again after 30 s", async () => {
    const clock = stepClock();
    const queue = open();
    await queue.connect();
    const key = await stuckOf(queue, ids.lease);
    await see(queue, clock, 14);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    await see(queue, clock, 28);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    await see(queue, clock, 4);
    expect(await queue.broker.sweepStuck(limits)).toEqual([key]);
    expect((await rowOf(database, key))?.status).toBe("queued");
  });

  it.each([
    ["ts-host-12-0123abcd", "lock"],
    ["ts-lease-host-12-0123abcd", "lock"],
    ["lease-ts-host-12-0123abcd", "lease"],
    ["ts-web-1", "row"],
    ["lease-1", "row"],
    ["0123456789abcdef0123456789abcdef", "row"],
  ])("D-17: the worker id %s has only one kind of liveness: %s", (id, kind) => {
    expect(livenessOf(id)).toBe(kind);
  });

  it("D-17: a new worker id has the kind of liveness that it was created with", () => {
    expect(livenessOf(newWorkerId("lock"))).toBe("lock");
    expect(livenessOf(newWorkerId("lease"))).toBe("lease");
  });

  it("D-20: its late settlement is refused when Python has claimed the job again but not started it yet", async () => {
    const clock = stepClock();
    const queue = open();
    const { key } = await queue.enqueue("hello", {}, { timeout: 1, retries: 5 });
    const [first] = await claim(queue);
    if (!first) throw new Error("the job was not claimed");
    await database.query(
      `update saq_jobs set job = convert_to(jsonb_set(convert_from(job, 'UTF8')::jsonb, '{started}', '1000')::text, 'UTF8')
       where key = $1`,
      [key],
    );
    await see(queue, clock, 14);
    expect(await queue.broker.sweepStuck(limits)).toEqual([key]);
    // Python's claim changes only the status of the row.
    await database.query("update saq_jobs set status = 'active' where key = $1", [key]);
    expect(await settle(queue, settlement(first, "complete"))).toBe("lost");
    expect((await rowOf(database, key))?.status).toBe("active");
  });
});

describe("a job without a live worker", () => {
  const pythonsClaim = async (queue: Hello, key: string) =>
    insertRow(database, {
      key,
      queue: queue.name,
      status: "active",
      document: JSON.stringify({ function: "hello", queue: queue.name, key, status: "active", timeout: 0 }),
    });

  it("D-10: each claim by Python that names no worker yet has its own limit of 300 s", async () => {
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
    // The same key, claimed again, is another claim.
    await database.query(
      "update saq_jobs set status = 'active', lock_key = lock_key + 1 where key = 'early'",
    );
    clock.pass(4);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    expect((await rowOf(database, "late"))?.status).toBe("active");
  });
});

describe("expired rows", () => {
  it("P-32: are left for a later sweep while another transaction holds them, and nothing waits for them", async () => {
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
    expect(performance.now() - began).toBeLessThan(4_500);
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
