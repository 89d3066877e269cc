/** Maintenance by several processes: which one sweeps, how much one pass does, whose clock counts, which rights. */
import { afterEach, beforeEach, describe, expect, it, jest } from "@jest/globals";
import pg from "pg";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { makeRole } from "../support/dml-role.js";
import { LogBook } from "../support/log-book.js";
import { pythonTables, version1 } from "../support/python-tables.js";
import {
  claim,
  insertRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { type SteppedClock, stepClock } from "../support/stepped-clock.js";

const database = useDatabase();
const tasks = {
  hello: (_ctx: unknown, _payload?: object) => "hi",
  flaky: (ctx: { job: { attempts: number } }) => {
    if (ctx.job.attempts < 2) throw new Error("not yet");
    return "at last";
  },
};
type Hello = Queue<typeof tasks>;
const open = (options: object = {}, from: { url: string } = database): Hello =>
  openQueue(from, tasks, options);
const limits = { graceSeconds: 5, lostLimit: 3, checkInterval: 2, failedTtl: 600 };

beforeEach(() =>
  database.query("drop schema public cascade; create schema public; grant all on schema public to public"),
);
afterEach(() => {
  jest.restoreAllMocks();
});

/** Each queue looks at the database as a worker does, every 2 s, for `seconds` of the stepped clock. */
async function see(queues: readonly Hello[], clock: SteppedClock, seconds: number): Promise<void> {
  for (let passed = 0; passed < seconds; passed += 2) {
    clock.pass(2);
    await Promise.all(queues.map((queue) => queue.broker.sweepLost(limits)));
  }
}

const advisoryLocks = async () =>
  (
    await database.query<{ n: number }>(
      `select count(*)::int as n from pg_locks where locktype = 'advisory'
         and database = (select oid from pg_database where datname = current_database())`,
    )
  )[0]?.n;

/** Inserts running jobs that started an hour ago and have a timeout of one second. */
const insertStuck = (queue: Hello, count: number, retries: number) =>
  database.query(
    `insert into saq_jobs (key, job, queue, status, scheduled) select 'stuck' || n, convert_to(jsonb_build_object(
       'function', 'hello', 'queue', $1::text, 'key', 'stuck' || n, 'status', 'active', 'timeout', 1, 'retries', $3::int,
       'attempts', 1, 'started', 1000 * floor(extract(epoch from now()) - 3600))::text, 'UTF8'), $1, 'active', 0
     from generate_series(1, $2::int) n`,
    [queue.name, count, retries],
  );

describe("the sweep lock", () => {
  it("D-15, P-29: is requested without waiting, and is released after every sweep", async () => {
    const [one, two] = [open({ name: "swept" }), open({ name: "swept" })];
    const clock = stepClock();
    await Promise.all([one.connect(), two.connect()]);
    await insertStuck(one, 1, 1);
    await see([one, two], clock, 14);
    const holder = await database.connect();
    await holder.query(`select pg_advisory_lock(21313, hashtext('"public"."saq_jobs" swept'))`);
    expect(await one.broker.sweepStuck(limits)).toEqual([]);
    await holder.query("select pg_advisory_unlock_all()");
    expect(await two.broker.sweepStuck(limits)).toEqual(["stuck1"]);
    expect(await advisoryLocks()).toBe(0);
    expect(await one.broker.sweepStuck(limits)).toEqual([]);
    expect(await advisoryLocks()).toBe(0);
  });

  it("D-15: is released when its connection ends, and the next sweep takes it on a new connection", async () => {
    const queue = open();
    const clock = stepClock();
    await queue.connect();
    await queue.broker.sweepStuck(limits);
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'saq'`,
    );
    await until(() =>
      queue.broker.sweepLost(limits).then(
        () => true,
        () => false,
      ),
    );
    await insertStuck(queue, 1, 1);
    await see([queue], clock, 14);
    await until(async () => (await queue.broker.sweepStuck(limits)).includes("stuck1"));
    expect(await advisoryLocks()).toBe(0);
  });

  it("D-15, D-24: two concurrent sweepers requeue each job once, and change no job that runs again", async () => {
    // In poll mode a sweeper holds no lock, so both sweepers really work at the same time.
    const queues = [1, 2].map(() => open({ name: "both", pollInterval: 0.05 }));
    const [one] = queues;
    if (!one) throw new Error("no queue");
    const clock = stepClock();
    await Promise.all(queues.map((queue) => queue.connect()));
    await insertStuck(one, 60, 3);
    await see(queues, clock, 14);
    const swept = await Promise.all(queues.map((queue) => queue.broker.sweepStuck(limits)));
    expect(swept.flat().toSorted()).toEqual(Array.from({ length: 60 }, (_, n) => `stuck${n + 1}`).toSorted());
    const again = await claim(one, { limit: 60 });
    expect(again).toHaveLength(60);
    for (const queue of queues) expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    for (const job of again) expect(await settle(one, settlement(job, "complete"))).toBe("applied");
  });
});

describe("a sweep", () => {
  it("D-28, P-30: ends all 700 stuck jobs, although they need several pages", async () => {
    const queue = open();
    const clock = stepClock();
    await queue.connect();
    await insertStuck(queue, 700, 1);
    await see([queue], clock, 14);
    // Meanwhile a worker goes on looking at the database: a sweeper that has not reached it for 5 s ends no job.
    const sweeping = queue.broker.sweepStuck(limits);
    let isOver = false;
    void sweeping.finally(() => {
      isOver = true;
    });
    while (!isOver) {
      await queue.broker.sweepLost(limits);
      await Promise.race([sweeping, new Promise((resolve) => setTimeout(resolve, 500).unref())]);
    }
    expect((await sweeping).length).toBe(700);
    expect(await queue.counts()).toMatchObject({ active: 0, aborted: 700 });
    expect(await rowOf(database, "stuck1")).toMatchObject({ status: "aborted" });
    expect(JSON.parse((await rowOf(database, "stuck1"))?.text ?? "")).toMatchObject({ error: "swept" });
  }, 600_000);
});

describe("the check for dead workers", () => {
  const beat = (queue: Hello, workerId: string) =>
    queue.broker.saveWorker({ workerId, stats: statsOfNobody, metadata: null, queueKey: queue.name }, 9);
  const statsOfNobody = { complete: 0, failed: 0, retried: 0, aborted: 0, uptime: 0 };

  it("is skipped while worker row updates show no silent worker, and runs when one is silent or updates stop", async () => {
    const queue = open();
    const clock = stepClock();
    await queue.connect();
    const looks = jest.spyOn(pg.Client.prototype, "query");
    const made = async () => {
      looks.mockClear();
      await queue.broker.sweepLost(limits);
      return looks.mock.calls.length;
    };
    await beat(queue, "ts-one-1-00000001");
    await beat(queue, "ts-one-1-00000001");
    expect(await made()).toBe(0);
    clock.pass(2.9);
    expect(await made()).toBe(0);
    clock.pass(0.2);
    expect(await made()).toBe(1);
    await database.query(
      "update saq_stats set expire_at = expire_at - 13 where worker_id = 'ts-one-1-00000001'",
    );
    await beat(queue, "ts-two-1-00000002");
    expect(await made()).toBeGreaterThan(0);
  });

  it("finds the jobs of a silent worker with only the row updates of another worker", async () => {
    const queue = open();
    const clock = stepClock();
    const job = await queue.enqueue("hello", {}, { timeout: 0 });
    await claim(queue, { workerId: "ts-dead-1-00000000" });
    await beat(queue, "ts-dead-1-00000000");
    for (let passed = 0; passed < 6; passed += 2) {
      await beat(queue, "ts-two-1-00000002");
      expect(await queue.broker.sweepLost(limits)).toEqual([]);
      clock.pass(2);
    }
    await database.query(
      "update saq_stats set expire_at = expire_at - 13 where worker_id = 'ts-dead-1-00000000'",
    );
    await beat(queue, "ts-two-1-00000002");
    expect(await queue.broker.sweepLost(limits)).toEqual([job.key]);
    expect(await rowOf(database, job.key)).toMatchObject({ status: "queued" });
  });
});

describe("a job without a timeout whose worker is gone", () => {
  it("D-10: becomes aborted when its abort was requested, and its key is free again", async () => {
    const queue = open();
    const clock = stepClock();
    await queue.connect();
    const document = {
      function: "hello",
      queue: queue.name,
      key: "k",
      timeout: 0,
      error: "stop it",
      worker_id: "python-1",
    };
    await insertRow(database, {
      key: "k",
      queue: queue.name,
      status: "aborting",
      scheduled: 0,
      document: JSON.stringify(document),
    });
    for (let passed = 0; passed < 290; passed += 4) {
      clock.pass(4);
      expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    }
    expect(await queue.enqueue("hello", {}, { key: "k" })).toBeNull();
    clock.pass(4);
    for (let tries = 0; tries < 5 && (await rowOf(database, "k"))?.status === "aborting"; tries++) {
      clock.pass(4);
      await queue.broker.sweepStuck(limits);
    }
    expect(JSON.parse((await rowOf(database, "k"))?.text ?? "")).toMatchObject({
      status: "aborted",
      error: "stop it",
    });
    expect(await queue.enqueue("hello", {}, { key: "k" })).not.toBeNull();
  });
});

describe("clocks", () => {
  it("D-29: a machine's clock that is an hour ahead changes no due time, and one warning is logged", async () => {
    const clock = stepClock();
    clock.set(3_600);
    const log = new LogBook();
    const queue = open({ logger: log });
    await queue.connect();
    expect(log.lines.filter(({ level }) => level === "warn")).toEqual([
      expect.objectContaining({
        message:
          "the clocks of this machine and of the database differ by more than a second; the database's clock is used",
        fields: { offsetMs: expect.closeTo(-3_600_000, -4) },
      }),
    ]);
    const later = await queue.enqueue("hello", {}, { scheduled: inSeconds(30) });
    const now = await queue.enqueue("hello");
    const [{ second } = { second: 0 }] = await database.query<{ second: number }>(
      "select extract(epoch from now())::float8 as second",
    );
    expect((await rowOf(database, later.key))?.scheduled).toBeGreaterThan(second + 20);
    expect((await rowOf(database, later.key))?.scheduled).toBeLessThan(second + 40);
    expect(Math.abs(now.queued / 1_000 - second)).toBeLessThan(10);
    expect((await claim(queue)).map(({ key }) => key)).toEqual([now.key]);
  });

  it("P-9: the engine reads fractions of a second that Python wrote, and writes whole seconds", async () => {
    const queue = open();
    await queue.connect();
    const document = JSON.stringify({
      function: "hello",
      queue: queue.name,
      key: "f",
      scheduled: 1000.7,
      status: "queued",
    });
    await insertRow(database, { key: "f", queue: queue.name, document, scheduled: 1001 });
    const [job] = await claim(queue);
    expect((await rowOf(database, "f"))?.scheduled).toBe(1000);
    if (!job) throw new Error("nothing was claimed");
    await settle(queue, settlement(job, "complete", {}, { keep: 60 }));
    expect(Number.isInteger((await rowOf(database, "f"))?.expire_at)).toBe(true);
  });
});

describe("the sequence of lock_key", () => {
  it("D-13: causes a warning that names the fix when it is nearly used up on Python's tables", async () => {
    await database.query(pythonTables);
    const said = async () => {
      const log = new LogBook();
      await open({ logger: log }).connect();
      return log.lines.filter(({ level }) => level === "warn");
    };
    await database.query("select setval('saq_jobs_lock_key_seq', 1700000000)");
    expect(await said()).toEqual([]);
    await database.query("select setval('saq_jobs_lock_key_seq', 1900000000)");
    expect(await said()).toEqual([
      expect.objectContaining({
        message: expect.stringContaining("Run npm run saq -- tune, which lets the sequence start over"),
        fields: { sequence: "saq_jobs_lock_key_seq", usedPercent: 88 },
      }),
    ]);
    await database.query("alter sequence saq_jobs_lock_key_seq cycle");
    expect(await said()).toEqual([]);
  });
});

describe("start-up", () => {
  it("P-4, D-11: fails and names the holder when the set-up lock is never released and the tables are older", async () => {
    await database.query(version1);
    const python = await database.connect();
    await python.query("select pg_advisory_lock(0, 0)");
    const { rows } = await python.query<{ pid: number }>("select pg_backend_pid() as pid");
    const clock = stepClock();
    const connected = open().connect();
    const refused = expect(connected).rejects.toThrow(
      `could not be upgraded to version 3 within 30 s: the set-up lock (0, 0) is held by server process ${rows[0]?.pid} (test). `,
    );
    await until(async () => {
      const sessions = await database.query<{ query: string }>(
        "select query from pg_stat_activity where datname = current_database() and application_name = 'saq'",
      );
      return sessions.some(({ query }) => query === "commit");
    });
    clock.pass(31);
    await refused;
    expect(await database.query("select version from saq_versions")).toEqual([{ version: 1 }]);
  });
});

describe("a role that may only read and write rows, on Python's tables", () => {
  it("can claim, retry, abort, limit groups, sweep, count and list jobs", async () => {
    await database.query(pythonTables);
    const { url } = await makeRole(database);
    const queue = open({ name: "dml" }, { url });
    const clock = stepClock();
    await queue.connect();
    await insertStuck(queue, 2, 1);
    await see([queue], clock, 14);
    expect((await queue.broker.sweepStuck(limits)).toSorted()).toEqual(["stuck1", "stuck2"]);
    const [first, second] = [
      await queue.enqueue("hello", {}, { groupKey: "g" }),
      await queue.enqueue("hello", {}, { groupKey: "g" }),
    ];
    const [running, ...others] = await claim(queue, { grouped: true });
    expect([running?.key, others]).toEqual([first.key, []]);
    expect(await queue.abort(second.key)).toBe("aborted");
    if (running) expect(await settle(queue, settlement(running, "complete"))).toBe("applied");
    expect(await queue.retry(second.key)).toBe("queued");
    const { ended } = await startWorker(queue);
    expect(await ended(second.key)).toMatch(/^Finished/);
    const flaky = await queue.enqueue("flaky", undefined, { retries: 2 });
    await ended(flaky.key, 2);
    const keyed = await queue.enqueue("hello", {}, { key: "once" });
    await ended(keyed?.key ?? "");
    expect(await queue.counts()).toMatchObject({ queued: 0, active: 0, complete: 4, aborted: 2 });
    expect(await queue.workers()).toHaveLength(1);
    expect(await queue.list({ statuses: ["aborted"] })).toHaveLength(2);
  });
});
