import { afterEach, describe, expect, it, jest } from "@jest/globals";
import { type CronJob, cronJob, type QueueOptions } from "../../../templates/backend/saq/config/index.js";
import type { ScheduleRow } from "../../../templates/backend/saq/core/schedule-store.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { type Context, type TaskMap, task } from "../../../templates/backend/saq/tasks/task.js";
import { Scheduler } from "../../../templates/backend/saq/worker/scheduling/scheduler.js";
import { LogBook } from "../support/log-book.js";
import {
  claim,
  deleteRow,
  editRow,
  insertRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { stepClock } from "../support/stepped-clock.js";
import { itOnPostgres, itOnTables, onRedis } from "../support/test-broker.js";

const database = useDatabase();
const daily = "0 3 * * *";
const everySecond = "* * * * * *";
const nothing = () => {};

let names = 0;
/** Keys are unique per database, so each test of this file takes another name. */
const freshName = () => `tick${++names}`;

interface Fixture {
  queue: Queue;
  log: LogBook;
  round(): Promise<void>;
}

/** A queue and the scheduler of a worker, whose rounds the test calls. Several queues of one name form a fleet. */
function open(
  jobs: readonly CronJob[],
  { tasks = { nothing }, ...options }: Partial<QueueOptions> & { tasks?: TaskMap } = {},
): Fixture {
  const log = new LogBook();
  const queue = openQueue<TaskMap>(database, tasks, {
    logger: log,
    ...options,
    scheduledTasks: jobs,
  }) as unknown as Queue;
  const scheduler = new Scheduler(queue, queue.config.scheduledTasks ?? [], log);
  const round = async () => {
    await queue.connect();
    await scheduler.round();
  };
  return { queue, log, round };
}

/** A second process of the same fleet. */
const peerOf = ({ queue }: Fixture, jobs: readonly CronJob[], tasks: TaskMap = { nothing }) =>
  open(jobs, { tasks, name: queue.name });

/** What storage remembers of a schedule (saq_cron on PostgreSQL). */
const memoryOf = async ({ broker }: Queue, name: string): Promise<ScheduleRow | undefined> =>
  (await broker.schedules.list())?.find((row) => row.name === name);

const now = () => Date.now() / 1_000;

/**
 * Expects ascending ticks, none twice. Gaps are allowed: a machine that stands still for half a second skips a tick of
 * a task that is due every second.
 */
const expectEachOnce = (ticks: readonly number[]) =>
  expect(ticks).toEqual([...new Set(ticks)].sort((one, other) => one - other));

/** Moves the due time of a tick some days back, as if its second had come. */
async function makeDue(key: string, days = 1): Promise<void> {
  const row = await rowOf(database, key);
  if (!row) throw new Error(`${key} is not there`);
  const due = row.scheduled - days * 86_400;
  const document = JSON.stringify({ ...JSON.parse(row.text), scheduled: due });
  await editRow(database, key, { scheduled: due, document });
}

async function runOnce(queue: Queue, key: string): Promise<void> {
  const [job] = await claim(queue);
  if (job?.key !== key) throw new Error(`${job?.key} was claimed`);
  await settle(queue, settlement(job, "complete", { completed: Date.now(), started: Date.now() }));
}

/** The last number that PostgreSQL has used for a row. */
const sequence = async () =>
  onRedis
    ? 0
    : (
        await database.query<{ last: number }>("select last_value::float8 as last from saq_jobs_lock_key_seq")
      )[0]?.last;

afterEach(() => {
  jest.restoreAllMocks();
});

describe("a tick", () => {
  it("C-3, T-60: waits in the queue until its time in the schedule's time zone, with payload and options", async () => {
    const name = freshName();
    const { queue, round } = open(
      [
        cronJob("nothing", {
          name,
          cron: daily,
          timezone: "Asia/Tokyo",
          payload: { size: 3 },
          timeout: 70,
          retries: 4,
          meta: { team: "a" },
        }),
      ],
      { cronTimezone: "America/New_York" },
    );
    await round();
    const job = await queue.job(`cron:${name}`);
    expect(job).toMatchObject({
      function: "nothing",
      status: "queued",
      kwargs: { size: 3 },
      timeout: 70,
      retries: 4,
      meta: { team: "a", schedule: name },
    });
    // Three in the morning in Tokyo is 18:00 UTC.
    expect(new Date((job?.scheduled ?? 0) * 1_000).toISOString()).toMatch(/T18:00:00.000Z$/);
    expect(job?.scheduled).toBeGreaterThan(now());
    expect(job?.scheduled).toBeLessThan(now() + 86_401);
    expect(await claim(queue)).toEqual([]);
    expect((await rowOf(database, `cron:${name}`))?.scheduled).toBe(job?.scheduled);
  });

  it("C-6: has the key `cron:` plus the task's name, and uses the queue's time zone by default", async () => {
    const { queue, round } = open([cronJob("clean_up", { cron: daily })], {
      tasks: { clean_up: nothing },
      cronTimezone: "Asia/Tokyo",
    });
    await round();
    const job = await queue.job("cron:clean_up");
    expect(new Date((job?.scheduled ?? 0) * 1_000).toISOString()).toMatch(/T18:00:00.000Z$/);
  });

  it("C-8, D-13, D-62: is enqueued once; later rounds write no row and use no number of the sequence", async () => {
    const [one, two] = [freshName(), freshName()];
    const jobs = [
      cronJob("nothing", { name: one, cron: daily }),
      cronJob("nothing", { name: two, cron: daily }),
    ];
    const fleet = open(jobs);
    await fleet.round();
    const rows = async () =>
      onRedis
        ? [await database.stored.rows(fleet.queue.name), await fleet.queue.broker.schedules.list()]
        : database.query(
            "select xmin::text, ctid::text from saq_jobs union all select xmin::text, ctid::text from saq_cron",
          );
    const [before, used] = [await rows(), await sequence()];
    const asked = jest.spyOn(fleet.queue.broker, "jobs");
    await fleet.round();
    await fleet.round();
    expect(asked).not.toHaveBeenCalled();
    const peer = peerOf(fleet, jobs);
    await peer.round();
    await peer.round();
    expect(await rows()).toEqual(before);
    expect(await sequence()).toBe(used);
  });

  it("C-7: reuses the row of the previous tick, whose end is kept in last_run", async () => {
    const name = freshName();
    const { queue, round } = open([cronJob("nothing", { name, cron: daily })]);
    await round();
    const first = await rowOf(database, `cron:${name}`);
    await makeDue(`cron:${name}`);
    await database.stored.rewindTick(queue.name, name, 86_400);
    await runOnce(queue, `cron:${name}`);
    await peerOf({ queue } as Fixture, [cronJob("nothing", { name, cron: daily })]).round();
    expect(await rowOf(database, `cron:${name}`)).toMatchObject({
      status: "queued",
      scheduled: first?.scheduled,
    });
    expect((await memoryOf(queue, name))?.lastRun).toMatchObject({ key: `cron:${name}`, status: "complete" });
  });

  it("V-5.2: is skipped while the previous run is active; the next tick is stored after that run ends", async () => {
    const name = freshName();
    const { queue, round } = open([cronJob("nothing", { name, cron: everySecond })]);
    await round();
    const key = `cron:${name}`;
    const due = (await queue.job(key))?.scheduled ?? 0;
    await until(async () => due <= now() - 1);
    const [job] = await claim(queue);
    expect(job?.key).toBe(key);
    const used = await sequence();
    await round();
    await round();
    expect((await rowOf(database, key))?.status).toBe("active");
    expect(await sequence()).toBe(used);
    if (job) await settle(queue, settlement(job, "complete"));
    await round();
    const row = await rowOf(database, key);
    expect(row?.status).toBe("queued");
    expect((await queue.job(key))?.scheduled).toBeGreaterThan(due + 1);
  });

  it.each([
    ["a snooze", { snoozes: 1 }, -1],
    ["a failed attempt", {}, 0],
  ] as const)("is not replaced or deleted while its run waits after %s", async (_, meta, charge) => {
    const name = freshName();
    const key = `cron:${name}`;
    const jobs = [cronJob("nothing", { name, cron: everySecond })];
    const fleet = open(jobs);
    await fleet.round();
    await makeDue(key);
    const [run] = await claim(fleet.queue);
    if (!run) throw new Error("the tick was not claimed");
    const scheduled = Math.ceil(now()) + 3_600;
    const fields = { started: 0, scheduled, touched: Date.now(), meta: { schedule: name, ...meta } };
    expect(await settle(fleet.queue, settlement(run, "queued", fields, { charge, scheduled }))).toBe(
      "applied",
    );
    const before = await rowOf(database, key);
    expect(before).toMatchObject({ status: "queued", scheduled });
    await fleet.round();
    // Another worker of the fleet, one whose entry has other times, and one without the entry.
    const peer = peerOf(fleet, jobs);
    const locks = jest.spyOn(peer.queue.broker, "updateLocked");
    await peer.round();
    expect(locks).not.toHaveBeenCalled();
    await peerOf(fleet, [cronJob("nothing", { name, cron: daily })]).round();
    await peerOf(fleet, []).round();
    await fleet.queue.schedules.pause(name);
    expect(await rowOf(database, key)).toEqual(before);
    expect(await fleet.queue.counts()).toMatchObject({ scheduled: 1, queued: 0, active: 0 });
  });

  it("D-31, D-54: is not enqueued again after an abort before its time, even if its row is gone", async () => {
    const name = freshName();
    const jobs = [cronJob("nothing", { name, cron: daily })];
    const fleet = open(jobs);
    await fleet.round();
    await fleet.queue.abort(`cron:${name}`);
    await fleet.round();
    await peerOf(fleet, jobs).round();
    expect((await rowOf(database, `cron:${name}`))?.status).toBe("aborted");
    await deleteRow(database, `cron:${name}`);
    await peerOf(fleet, jobs).round();
    expect(await rowOf(database, `cron:${name}`)).toBeUndefined();
  });

  it("D-54: keeps its row for 10 s if its ttl is negative, as a guard against slow clocks", async () => {
    const name = freshName();
    const { queue, round } = open([cronJob("nothing", { name, cron: daily, ttl: -1 })]);
    await round();
    expect((await queue.job(`cron:${name}`))?.ttl).toBe(10);
    const unnamed = open([cronJob("nothing", { name: freshName(), cron: daily })], { defaults: { ttl: -5 } });
    await unnamed.round();
    const [job] = await unnamed.queue.list();
    expect(job?.ttl).toBe(10);
  });

  it("D-55: has its own key if the schedule allows overlap", async () => {
    const name = freshName();
    const jobs = [cronJob("nothing", { name, cron: everySecond, overlap: "allow" })];
    const fleet = open(jobs);
    const peer = peerOf(fleet, jobs);
    const keys = async () => (await database.stored.rows(fleet.queue.name)).map(({ key }) => key);
    while ((await keys()).length < 3) await Promise.all([fleet.round(), peer.round()]);
    const ticks = (await keys()).map((key) => Number(key.slice(`cron:${name}:`.length)));
    expectEachOnce(ticks);
  });

  it("D-56: two named schedules of one task each have their own tick, and both ticks run", async () => {
    const [hourly, nightly] = [freshName(), freshName()];
    const { queue, round } = open([
      cronJob("nothing", { name: hourly, cron: "0 * * * *", payload: { which: "hourly" } }),
      cronJob("nothing", { name: nightly, cron: daily, payload: { which: "nightly" } }),
    ]);
    await round();
    for (const [name, which] of [
      [hourly, "hourly"],
      [nightly, "nightly"],
    ] as const) {
      expect((await queue.job(`cron:${name}`))?.kwargs).toEqual({ which });
      await makeDue(`cron:${name}`);
      await runOnce(queue, `cron:${name}`);
    }
    expect(await queue.counts()).toMatchObject({ complete: 2 });
  });

  it("D-58: a schedule with an invalid payload is logged once and does not stop other schedules", async () => {
    const [bad, good] = [freshName(), freshName()];
    const { log, round } = open(
      [
        cronJob("picky", { name: bad, cron: daily, payload: { size: "big" } }),
        cronJob("nothing", { name: good, cron: daily }),
      ],
      {
        tasks: {
          nothing,
          picky: task({
            input: {
              "~standard": {
                version: 1,
                vendor: "test",
                validate: () => ({ issues: [{ message: "must be a number", path: ["size"] }] }),
              },
            },
            run: nothing,
          }),
        },
      },
    );
    await round();
    await round();
    expect(await rowOf(database, `cron:${good}`)).toBeDefined();
    expect(await rowOf(database, `cron:${bad}`)).toBeUndefined();
    const said = log.lines.filter(({ message }) => message === "a scheduled task could not be enqueued");
    expect(said).toHaveLength(1);
    expect(said[0]?.fields).toMatchObject({
      schedule: bad,
      reason: 'Invalid payload for task "picky": size: must be a number',
    });
  });

  itOnPostgres("D-58: a key that another transaction holds does not delay other schedules", async () => {
    const [held, free] = [freshName(), freshName()];
    const { queue, round } = open([
      cronJob("nothing", { name: held, cron: daily }),
      cronJob("nothing", { name: free, cron: daily }),
    ]);
    await queue.connect();
    const other = await database.connect();
    await other.query("begin");
    await other.query(
      "insert into saq_jobs (key, job, queue, status) values ($1, '', 'elsewhere', 'queued')",
      [`cron:${held}`],
    );
    await round();
    expect(await rowOf(database, `cron:${free}`)).toBeDefined();
    await other.query("rollback");
    await round();
    expect(await rowOf(database, `cron:${held}`)).toBeDefined();
  });

  it("D-62: before-enqueue hooks see each tick once, and may change it", async () => {
    const name = freshName();
    const { queue, round } = open([cronJob("nothing", { name, cron: daily })]);
    const seen: string[] = [];
    queue.registerBeforeEnqueue((job) => {
      seen.push(job.key);
      job.meta.hooked = true;
    });
    await round();
    await round();
    expect(seen).toEqual([`cron:${name}`]);
    expect((await queue.job(`cron:${name}`))?.meta).toEqual({ schedule: name, hooked: true });
  });

  itOnTables("D-14: logs one warning if another queue holds its key", async () => {
    const name = freshName();
    await open([cronJob("nothing", { name, cron: daily })]).round();
    const other = open([cronJob("nothing", { name, cron: daily })]);
    await other.round();
    await other.round();
    const said = other.log.lines.filter(({ level }) => level === "warn");
    expect(said.map(({ message }) => message)).toEqual([
      "this scheduled task does not run: another queue in this database uses its key. Give it another name",
    ]);
  });

  it("D-29: uses the database's clock", async () => {
    const name = freshName();
    stepClock().set(40 * 86_400);
    const { round } = open([cronJob("nothing", { name, cron: daily })]);
    await round();
    jest.restoreAllMocks();
    const due = (await rowOf(database, `cron:${name}`))?.scheduled ?? 0;
    expect(due).toBeGreaterThan(now());
    expect(due).toBeLessThan(now() + 86_401);
  });
});

describe("schedules that Python workers run too", () => {
  const python = (queue: Queue, key: string, scheduled: number) =>
    JSON.stringify({ queue: queue.name, key, function: "nothing", scheduled, status: "queued", queued: 1 });

  it("T-192: a tick that SAQ has stored or run is not stored again", async () => {
    const name = freshName();
    const jobs = [cronJob("nothing", { name, cron: daily })];
    const fleet = open(jobs);
    const tick = fleet.queue.config.scheduledTasks?.[0]?.cron.next(now()) ?? 0;
    await fleet.queue.connect();
    const key = `cron:${name}`;
    await insertRow(database, {
      key,
      queue: fleet.queue.name,
      document: python(fleet.queue, key, tick),
      scheduled: tick,
    });
    const before = await rowOf(database, key);
    await fleet.round();
    expect(await rowOf(database, key)).toEqual(before);
    await editRow(database, key, {
      status: "complete",
      ...(onRedis ? { members: { status: "complete" } } : {}),
    });
    await peerOf(fleet, jobs).round();
    expect((await rowOf(database, key))?.status).toBe("complete");
  });

  it("T-192: our row has the key and the time that keep SAQ from storing the tick again", async () => {
    const name = freshName();
    const { queue, round } = open([cronJob("nothing", { name, cron: daily })]);
    await round();
    const row = await rowOf(database, `cron:${name}`);
    expect(JSON.parse(row?.text ?? "")).toMatchObject({
      key: `cron:${name}`,
      queue: queue.name,
      function: "nothing",
      scheduled: row?.scheduled,
    });
  });

  it("D-57: another program's waiting job stays unchanged, and warnings are logged", async () => {
    const [name, gone] = [freshName(), freshName()];
    const fleet = open([cronJob("nothing", { name, cron: daily })]);
    await fleet.queue.connect();
    const later = Math.ceil(now()) + 400 * 86_400;
    for (const key of [`cron:${name}`, `cron:${gone}`]) {
      const document = python(fleet.queue, key, later);
      await insertRow(database, { key, queue: fleet.queue.name, document, scheduled: later });
    }
    await fleet.round();
    await fleet.round();
    expect((await rowOf(database, `cron:${name}`))?.scheduled).toBe(later);
    expect((await rowOf(database, `cron:${gone}`))?.scheduled).toBe(later);
    expect(fleet.log.lines.filter(({ level }) => level === "warn").map(({ message }) => message)).toEqual([
      "waiting cron jobs belong to no scheduled task here; another program stored them, so they are not deleted",
      "a job of another program has the key of this scheduled task's next tick, so the tick is not stored",
    ]);
  });
});

describe("a changed configuration", () => {
  it("D-57: a tick of the new cron expression replaces a waiting tick of the old one", async () => {
    const name = freshName();
    const old = open([cronJob("nothing", { name, cron: "0 0 1 1 *" })]);
    await old.round();
    const young = peerOf(old, [cronJob("nothing", { name, cron: everySecond, payload: { young: true } })]);
    await young.round();
    const job = await young.queue.job(`cron:${name}`);
    expect(job?.scheduled).toBeLessThan(now() + 2);
    expect(job?.kwargs).toEqual({ young: true });
  });

  it("D-57, D-31: a tick of the new expression replaces an aborted tick whose row is kept for ever", async () => {
    const name = freshName();
    const old = open([cronJob("nothing", { name, cron: "0 0 1 1 *", ttl: 0 })]);
    await old.round();
    const key = `cron:${name}`;
    expect(await old.queue.abort(key)).toBe("aborted");
    const aborted = await rowOf(database, key);
    await peerOf(old, [cronJob("nothing", { name, cron: "0 0 1 1 *", ttl: 0 })]).round();
    expect(await rowOf(database, key)).toEqual(aborted);
    await peerOf(old, [cronJob("nothing", { name, cron: everySecond })]).round();
    const stored = await rowOf(database, key);
    expect(stored).toMatchObject({ status: "queued", expire_at: null });
    expect(stored?.scheduled).toBeLessThan(now() + 2);
  });

  it.each([
    ["an earlier", 9, 3],
    ["a later", 3, 9],
  ])(
    "D-57: the newest schedule decides while workers are replaced, and neither version blocks the other: %s time",
    async (_which, oldHours, youngHours) => {
      const name = freshName();
      const dailyIn = (hours: number) => `0 ${(new Date().getUTCHours() + hours) % 24} * * *`;
      const [before, after] = [dailyIn(oldHours), dailyIn(youngHours)];
      const old = open([cronJob("nothing", { name, cron: before })]);
      await old.round();
      const young = peerOf(old, [cronJob("nothing", { name, cron: after })]);
      await young.round();
      const tick = young.queue.config.scheduledTasks?.[0]?.cron.next(now());
      expect((await rowOf(database, `cron:${name}`))?.scheduled).toBe(tick);
      // The old worker's next round, once its own tick has passed.
      const again = open([], { name: old.queue.name });
      const lagging = new Scheduler(again.queue, old.queue.config.scheduledTasks ?? [], old.log);
      jest.spyOn(again.queue.broker.schedules, "register").mockResolvedValue([]);
      await lagging.round();
      expect((await rowOf(database, `cron:${name}`))?.scheduled).toBe(tick);
      await deleteRow(database, `cron:${name}`);
      await lagging.round();
      const stray = (await rowOf(database, `cron:${name}`))?.scheduled;
      expect(stray).toBe(old.queue.config.scheduledTasks?.[0]?.cron.next(now()));
      expect((await memoryOf(young.queue, name))?.tick).not.toBe(stray);
      await peerOf(old, [cronJob("nothing", { name, cron: after })]).round();
      expect((await rowOf(database, `cron:${name}`))?.scheduled).not.toBe(stray);
    },
  );

  it("D-57: the tick and the stored state of a removed schedule are deleted", async () => {
    const [kept, gone, apart] = [freshName(), freshName(), freshName()];
    const keptJob = cronJob("nothing", { name: kept, cron: daily });
    const old = open([
      keptJob,
      cronJob("nothing", { name: gone, cron: daily }),
      cronJob("nothing", { name: apart, cron: daily, overlap: "allow" }),
    ]);
    await old.round();
    expect(await old.queue.counts()).toMatchObject({ scheduled: 3 });
    await peerOf(old, [keptJob]).round();
    expect((await old.queue.list()).map(({ key }) => key)).toEqual([`cron:${kept}`]);
    expect(await memoryOf(old.queue, gone)).toBeUndefined();
    expect(await memoryOf(old.queue, kept)).toBeDefined();
    await peerOf(old, []).round();
    expect(await old.queue.counts()).toMatchObject({ scheduled: 0 });
  });

  it("D-55, D-57: a changed overlap setting replaces the waiting tick, and no tick is lost", async () => {
    const name = freshName();
    const old = open([cronJob("nothing", { name, cron: daily, overlap: "allow" })]);
    await old.round();
    await peerOf(old, [cronJob("nothing", { name, cron: daily })]).round();
    expect((await old.queue.list()).map(({ key }) => key)).toEqual([`cron:${name}`]);
  });

  it("D-57: a tick that an older worker deleted at its start is stored again in time, unless it is paused", async () => {
    const [kept, young, paused] = [freshName(), freshName(), freshName()];
    const [keptJob, ...others] = [kept, young, paused].map((name) =>
      cronJob("nothing", { name, cron: daily }),
    ) as [CronJob, ...CronJob[]];
    const fleet = open([keptJob, ...others]);
    await fleet.round();
    await fleet.queue.schedules.pause(paused);
    await peerOf(fleet, [keptJob]).round();
    const tick = fleet.queue.config.scheduledTasks?.[0]?.cron.next(now()) ?? 0;
    const clock = jest.spyOn(fleet.queue.broker, "now").mockReturnValue((tick - 60) * 1_000);
    await fleet.round();
    expect(await rowOf(database, `cron:${young}`)).toBeUndefined();
    clock.mockReturnValue((tick - 1.5) * 1_000);
    await fleet.round();
    expect((await rowOf(database, `cron:${young}`))?.scheduled).toBe(tick);
    expect(await rowOf(database, `cron:${paused}`)).toBeUndefined();
    expect(await memoryOf(fleet.queue, paused)).toMatchObject({ paused: true });
  });

  it("a queue without scheduledTasks deletes no ticks", async () => {
    const fleet = open([cronJob("nothing", { name: freshName(), cron: daily })]);
    await fleet.round();
    const plain = openQueue<TaskMap>(database, { nothing }, { name: fleet.queue.name });
    await startWorker(plain);
    expect(await fleet.queue.counts()).toMatchObject({ scheduled: 1 });
  });
});

describe("missed ticks", () => {
  /** The state that a fleet leaves if it was stopped days ago, after its last run. */
  async function stopped(
    misfire: "skip" | "once",
  ): Promise<{ name: string; jobs: CronJob[]; fleet: Fixture }> {
    const name = freshName();
    const jobs = [cronJob("nothing", { name, cron: daily, misfire })];
    const fleet = open(jobs);
    await fleet.round();
    await deleteRow(database, `cron:${name}`);
    await database.stored.rewindTick(fleet.queue.name, name, 4 * 86_400);
    return { name, jobs, fleet };
  }

  it("misfire once: the next start stores one run for all missed ticks, with any number of workers", async () => {
    const { name, jobs, fleet } = await stopped("once");
    const peers = Array.from({ length: 3 }, () => peerOf(fleet, jobs));
    await Promise.all(peers.map((peer) => peer.round()));
    const tick = (await fleet.queue.job(`cron:${name}`))?.scheduled;
    expect(tick).toBe(fleet.queue.config.scheduledTasks?.[0]?.cron.previous(now()));
    await runOnce(fleet.queue, `cron:${name}`);
    for (const peer of [...peers, peerOf(fleet, jobs)]) await peer.round();
    expect((await rowOf(database, `cron:${name}`))?.scheduled).toBeGreaterThan(now());
    expect(await memoryOf(fleet.queue, name)).toMatchObject({ lastRun: { status: "complete" } });
  });

  itOnTables("misfire once: is not lost if others hold the entry's row at the start", async () => {
    const { name, jobs, fleet } = await stopped("once");
    const key = `cron:${name}`;
    const peer = peerOf(fleet, jobs);
    const { schedules } = peer.queue.broker;
    const holder = await database.connect();
    const register = schedules.register.bind(schedules);
    jest.spyOn(schedules, "register").mockImplementation(async (definitions) => {
      const rows = await register(definitions);
      await holder.query("begin");
      await holder.query("select 1 from saq_cron where name = $1 for update", [name]);
      return rows;
    });
    await peer.round();
    expect(await rowOf(database, key)).toBeUndefined();
    await holder.query("rollback");
    await peer.round();
    expect((await rowOf(database, key))?.scheduled).toBe(
      fleet.queue.config.scheduledTasks?.[0]?.cron.previous(now()),
    );
    await runOnce(fleet.queue, key);
    await peer.round();
    expect((await rowOf(database, key))?.scheduled).toBeGreaterThan(now());
  });

  it("misfire once: is not lost if a hook fails at the start", async () => {
    const { name, jobs, fleet } = await stopped("once");
    const peer = peerOf(fleet, jobs);
    jest.spyOn(peer.queue.schedules, "draftTick").mockRejectedValueOnce(new Error("not now"));
    await peer.round();
    expect(await rowOf(database, `cron:${name}`)).toBeUndefined();
    await peer.round();
    expect((await fleet.queue.job(`cron:${name}`))?.scheduled).toBe(
      fleet.queue.config.scheduledTasks?.[0]?.cron.previous(now()),
    );
  });

  it("misfire skip: the next start stores no missed tick, as in SAQ", async () => {
    const { name, jobs, fleet } = await stopped("skip");
    await peerOf(fleet, jobs).round();
    expect((await rowOf(database, `cron:${name}`))?.scheduled).toBeGreaterThan(now());
  });

  it("C-3: a tick that already waits in the queue is not missed, but runs late", async () => {
    const name = freshName();
    const jobs = [cronJob("nothing", { name, cron: daily })];
    const fleet = open(jobs);
    await fleet.round();
    await makeDue(`cron:${name}`);
    await peerOf(fleet, jobs).round();
    const [job] = await claim(fleet.queue);
    expect(job?.key).toBe(`cron:${name}`);
  });

  it("misfire once: a first start and a changed expression count no tick as missed", async () => {
    const name = freshName();
    const fleet = open([cronJob("nothing", { name, cron: daily, misfire: "once" })]);
    await fleet.round();
    expect((await rowOf(database, `cron:${name}`))?.scheduled).toBeGreaterThan(now());
    await deleteRow(database, `cron:${name}`);
    await database.stored.rewindTick(fleet.queue.name, name, 4 * 86_400);
    await peerOf(fleet, [cronJob("nothing", { name, cron: "0 4 * * *", misfire: "once" })]).round();
    expect((await rowOf(database, `cron:${name}`))?.scheduled).toBeGreaterThan(now());
  });

  itOnTables(
    "misfire once: a tick that was skipped during an active run does not count as missed",
    async () => {
      const name = freshName();
      const key = `cron:${name}`;
      const jobs = [cronJob("nothing", { name, cron: daily, misfire: "once" })];
      const fleet = open(jobs);
      await fleet.round();
      // The run of a tick of four days ago is still active, so the ticks since then were skipped.
      await makeDue(key, 4);
      await database.query("update saq_cron set tick = tick - 4 * 86400 where name = $1", [name]);
      const [run] = await claim(fleet.queue);
      if (run?.key !== key) throw new Error("the tick was not claimed");
      const peer = peerOf(fleet, jobs);
      await peer.round();
      expect((await rowOf(database, key))?.status).toBe("active");
      await settle(fleet.queue, settlement(run, "complete", { completed: Date.now(), started: Date.now() }));
      for (const each of [peer, peerOf(fleet, jobs), fleet]) {
        await each.round();
        const row = await rowOf(database, key);
        expect(row?.status).toBe("queued");
        expect(row?.scheduled).toBeGreaterThan(now());
      }
      expect(await memoryOf(fleet.queue, name)).toMatchObject({ lastRun: { status: "complete" } });
    },
  );
});

describe("schedules that workers run", () => {
  /** A task that notes its tick and then waits for `ms`. */
  const noting = (ticks: number[], ms = 0) => ({
    async tick(ctx: Context) {
      ticks.push(ctx.job.scheduled);
      await new Promise((resolve) => setTimeout(resolve, ms));
    },
  });

  it("T-65, T-72: a worker with one slot and no other task runs a schedule that is due every second", async () => {
    const ticks: number[] = [];
    const queue = openQueue(database, noting(ticks), {
      concurrency: 1,
      scheduledTasks: [cronJob("tick", { name: freshName(), cron: everySecond })],
    });
    const began = now();
    await startWorker(queue);
    await until(async () => (await queue.count("incomplete")) === 1);
    await until(async () => ticks.length >= 3);
    expectEachOnce(ticks);
    expect(ticks[0]).toBeLessThan(began + 3);
  });

  it("ten workers run no tick twice and continue, while one of them is stopped and replaced", async () => {
    const ticks: number[] = [];
    const name = freshName();
    const scheduledTasks = [cronJob("tick", { name, cron: everySecond })];
    const queue = openQueue(database, noting(ticks), { scheduledTasks });
    for (let count = 0; count < 9; count++) await startWorker(queue);
    for (const wanted of [1, 2, 3]) {
      const { worker } = await startWorker(queue);
      await until(async () => ticks.length >= wanted);
      await worker.stop();
    }
    await until(async () => ticks.length >= 4);
    expectEachOnce(ticks);
  });

  it("D-55: runs overlap if the schedule allows it; otherwise ticks during a run are skipped", async () => {
    const [apart, alone]: [number[], number[]] = [[], []];
    const of = (ticks: number[], overlap: "allow" | "skip") =>
      openQueue(database, noting(ticks, 1_200), {
        scheduledTasks: [cronJob("tick", { name: freshName(), cron: everySecond, overlap })],
      });
    await Promise.all([startWorker(of(apart, "allow")), startWorker(of(alone, "skip"))]);
    await until(async () => apart.length >= 3 && alone.length >= 2);
    expectEachOnce(apart);
    expect(apart.some((tick, index) => tick - (apart[index - 1] ?? 0) === 1)).toBe(true);
    for (let index = 1; index < alone.length; index++) {
      expect((alone[index] ?? 0) - (alone[index - 1] ?? 0)).toBeGreaterThanOrEqual(2);
    }
  });

  itOnTables("P-22: ticks run in poll mode, as behind a pooler, and in tables with other names", async () => {
    const ticks: number[] = [];
    const queue = openQueue(database, noting(ticks), {
      pollInterval: 0.2,
      tables: { jobs: "own_jobs", stats: "own_stats", versions: "own_versions" },
      scheduledTasks: [cronJob("tick", { name: freshName(), cron: everySecond })],
    });
    await startWorker(queue);
    await until(async () => ticks.length >= 2);
    expectEachOnce(ticks);
    expect(await database.query("select name from own_jobs_cron")).toHaveLength(1);
  });

  it("C-7: a run that throws is retried before the next tick, up to the retries of its job", async () => {
    const attempts: [number, number][] = [];
    const failing = {
      async tick(ctx: Context) {
        attempts.push([ctx.job.scheduled, ctx.job.attempts]);
        throw new Error("no");
      },
    };
    const name = freshName();
    const queue = openQueue(database, failing, {
      scheduledTasks: [cronJob("tick", { name, cron: everySecond, retries: 2 })],
    });
    await startWorker(queue);
    await until(async () => attempts.length >= 4);
    expect(attempts.map(([, attempt]) => attempt).slice(0, 4)).toEqual([1, 2, 1, 2]);
  });
});
