/** The database's clock is moved while jobs run: such a step must not count as time that has passed. */
import { afterEach, beforeEach, describe, expect, it, jest } from "@jest/globals";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { LogBook } from "../support/log-book.js";
import { claim, insertRow, openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";
import { type SteppedClock, stepClock } from "../support/stepped-clock.js";

const database = useDatabase();
const limits = { graceSeconds: 5, lostLimit: 3, checkInterval: 2, failedTtl: 600 };
const hour = 3_600;

/** Puts clock functions with an adjustable step into `public`, which the search path names before `pg_catalog`. */
beforeEach(async () => {
  await database.query(`
    drop schema public cascade; create schema public;
    create table clock_step (seconds int not null); insert into clock_step values (0);
    create function public.clock_timestamp() returns timestamptz language sql volatile as
      'select pg_catalog.clock_timestamp() + make_interval(secs => (select seconds from public.clock_step))';
    create function public.now() returns timestamptz language sql stable as
      'select pg_catalog.now() + make_interval(secs => (select seconds from public.clock_step))'`);
  const [{ name } = { name: "" }] = await database.query<{ name: string }>(
    "select current_database() as name",
  );
  await database.query(`alter database ${name} set search_path = public, pg_catalog`);
});
afterEach(() => {
  jest.restoreAllMocks();
});

const setDatabaseClock = (seconds: number) => database.query("update clock_step set seconds = $1", [seconds]);

/** Sweeps lost jobs as a worker does, every 2 s, for `seconds` of the stepped clocks. */
async function see(queue: Queue, clock: SteppedClock, seconds: number): Promise<void> {
  for (let passed = 0; passed < seconds; passed += 2) {
    clock.pass(2);
    clock.set(2);
    await queue.broker.sweepLost(limits);
  }
}

const insertStuck = (queue: Queue, key: string) =>
  insertRow(database, {
    key,
    queue: queue.name,
    status: "active",
    scheduled: 0,
    document: JSON.stringify({ function: "hello", queue: queue.name, key, timeout: 1, started: 1_000 }),
  });

describe("a database clock that is set forward by an hour", () => {
  it("D-29: the sweep ends a job that is really stuck, but none that seems stuck because of the step", async () => {
    const queue = openQueue(database, { hello: () => "hi" });
    await queue.enqueue("hello", undefined, { key: "limited", timeout: 60 });
    await queue.enqueue("hello", undefined, { key: "beating", timeout: 0, heartbeat: 60 });
    expect(await claim(queue, { limit: 2 })).toHaveLength(2);
    const clock = stepClock();
    await see(queue, clock, 14);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    await setDatabaseClock(hour);
    await insertStuck(queue, "stuck");
    const swept = new Set<string>();
    await until(async () => {
      for (const key of await queue.broker.sweepStuck(limits)) swept.add(key);
      return swept.has("stuck");
    });
    expect([...swept]).toEqual(["stuck"]);
    expect((await rowOf(database, "limited"))?.status).toBe("active");
    // A second step of 30 s, which is less than the 60 s of both jobs.
    await setDatabaseClock(hour + 30);
    await until(async () => {
      await queue.broker.sweepStuck(limits);
      return Math.abs(queue.broker.now() / 1_000 - Date.now() / 1_000 - hour - 30) < 60;
    });
    expect((await rowOf(database, "limited"))?.status).toBe("active");
    expect((await rowOf(database, "beating"))?.status).toBe("active");
  });

  it("D-29: a worker notices the step when it next saves its row, and fails none of its jobs", async () => {
    let finish = () => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const log = new LogBook();
    const timers = { workerInfo: 0.2, abort: 0.05 };
    const queue = openQueue(database, { wait: () => finished }, { timers, logger: log });
    const { ended } = await startWorker(queue);
    const { key } = await queue.enqueue("wait", undefined, { timeout: 60, heartbeat: 60 });
    await until(async () => (await rowOf(database, key))?.status === "active");
    await setDatabaseClock(hour);
    await log.saw(({ message }) => message.includes("differ by more than a second"));
    expect(Math.abs(queue.broker.now() - Date.now() - hour * 1_000)).toBeLessThan(10_000);
    // Long enough for two checks for silent jobs with the moved clock.
    await new Promise((resolve) => setTimeout(resolve, 150));
    finish();
    expect(await ended(key)).toBe("Finished wait");
    await setDatabaseClock(0);
    await log.saw(({ message }) => message.includes("agree again"));
    expect(log.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
  });
});

describe("a database clock that is set back by an hour", () => {
  it("D-29: the job of a dead worker is requeued, although the worker's row seems valid for another hour", async () => {
    const queue = openQueue(database, { hello: () => "hi" });
    await setDatabaseClock(hour);
    const stats = { complete: 0, failed: 0, retried: 0, aborted: 0, uptime: 0 };
    await queue.enqueue("hello", undefined, { key: "orphan", timeout: 0 });
    await queue.broker.saveWorker(
      { workerId: "ts-dead-1-00000000", stats, metadata: null, queueKey: queue.name },
      9,
    );
    expect(await claim(queue, { workerId: "ts-dead-1-00000000" })).toHaveLength(1);
    await setDatabaseClock(0);
    const clock = stepClock();
    await until(async () => {
      await queue.broker.sweepLost(limits);
      return Math.abs(queue.broker.now() - Date.now()) < 10_000;
    });
    await see(queue, clock, 20);
    expect(await rowOf(database, "orphan")).toMatchObject({ status: "queued" });
  });

  it("D-29: an idle worker runs a job that is due", async () => {
    const timers = { workerInfo: 0.2 };
    const queue = openQueue(database, { hello: () => "hi" }, { timers });
    await setDatabaseClock(hour);
    const { ended } = await startWorker(queue);
    const first = await queue.enqueue("hello");
    await ended(first.key);
    await setDatabaseClock(0);
    // The row is stored without a notification, as another program may store it.
    const row = { key: "silent", queue: queue.name, status: "queued", scheduled: 0 };
    const document = JSON.stringify({
      function: "hello",
      queue: queue.name,
      key: "silent",
      status: "queued",
    });
    await insertRow(database, { ...row, document });
    expect(await ended("silent")).toBe("Finished hello");
  }, 600_000);
});
