/** The table saq_pauses, how workers read it, and what a claim reads while a task is paused. */
import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, it, jest } from "@jest/globals";
import { ClaimStart } from "../../../templates/backend/saq/postgres/claim-start.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { makeRole } from "../support/dml-role.js";
import { LogBook } from "../support/log-book.js";
import { openQueue, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const tasks = { work: (_ctx: Context, _payload?: object) => "done", other: () => "done" };
const open = (options: object = {}, url = database.url) => openQueue({ url }, tasks, options);

afterEach(async () => {
  await database.query("drop schema public cascade; create schema public");
});

const tables = async () =>
  (
    await database.query<{ name: string; comment: string | null }>(
      `select relname as name, obj_description(oid, 'pg_class') as comment from pg_class
       where relnamespace = 'public'::regnamespace and relname like '%pauses' and relkind = 'r'`,
    )
  ).map(({ name, comment }) => [name, comment]);
const comment = "create-saq-app: pauses, version 1";
const refusal =
  "pauses are stored in the table saq_pauses, which the database role of this process may not create or use.";

describe("the table saq_pauses", () => {
  it("is created by the first pause only, with its version", async () => {
    const queue = open();
    const { ended } = await startWorker(queue);
    await ended((await queue.enqueue("work")).key);
    expect(await queue.pauses()).toEqual([]);
    expect(await queue.resume()).toBe(false);
    expect(await tables()).toEqual([]);
    await queue.pause({ task: "work" });
    expect(await tables()).toEqual([["saq_pauses", comment]]);
  });

  it("is named after the jobs table, and two sets of tables have separate pauses", async () => {
    const mail = { jobs: "mail_jobs", stats: "mail_stats", versions: "mail_versions" };
    const [ours, mails] = [open({ name: "q" }), open({ name: "q", tables: mail })];
    await ours.pause();
    await mails.pause({ task: "other" });
    expect((await tables()).map(([name]) => name).toSorted()).toEqual(["mail_jobs_pauses", "saq_pauses"]);
    expect(await ours.pauses()).toMatchObject([{ task: null }]);
    expect(await mails.pauses()).toMatchObject([{ task: "other" }]);
  });

  it("is created once when ten processes pause at once", async () => {
    await open().connect();
    const queues = Array.from({ length: 10 }, () => open());
    await Promise.all(queues.map((queue) => queue.pause()));
    expect(await database.query("select 1 from saq_pauses")).toHaveLength(10);
  });

  it("is needed for a pause: a role that may not create it gets an error, and its worker runs jobs", async () => {
    await open().connect();
    const { url } = await makeRole(database);
    const queue = open({}, url);
    const { ended, log } = await startWorker(queue);
    await ended((await queue.enqueue("work")).key);
    const error = `pause: ${refusal} Pause something once with a role that may create it, and run: grant select,`;
    await expect(queue.pause()).rejects.toMatchObject({
      code: "config",
      message: expect.stringContaining(error),
    });
    expect(await queue.resume()).toBe(false);
    expect(await queue.pauses()).toEqual([]);
    expect(log.lines.filter(({ level }) => level === "warn" || level === "error")).toEqual([]);
  });

  it("that a role may use works for this role; without the right to read it, a warning is logged once", async () => {
    const owner = open();
    await owner.pause({ task: "other" });
    const { url, name: role } = await makeRole(database);
    const queue = open({ name: owner.name }, url);
    const { ended } = await startWorker(queue);
    await queue.pause({ task: "work" });
    expect(await owner.pauses()).toMatchObject([{ task: "other" }, { task: "work" }]);
    expect(await queue.resume({ task: "work" })).toBe(true);
    await ended((await queue.enqueue("work")).key);

    await database.query(`revoke all on saq_pauses from ${role}`);
    const log = new LogBook();
    const blind = open({ name: owner.name, logger: log, timers: { workerInfo: 0.1 } }, url);
    const worker = await startWorker(blind);
    expect(await blind.apply("other")).toBe("done");
    await expect(blind.resume({ task: "other" })).rejects.toMatchObject({ code: "config" });
    await worker.worker.stop();
    // The worker that could read it before goes on too.
    expect(await queue.apply("other")).toBe("done");
    const warned = log.lines.filter(({ level }) => level === "warn");
    expect(warned.map(({ message }) => message)).toEqual([
      expect.stringMatching(/^pauses have no effect in this process: .* grant select on saq_pauses to ROLE;/),
    ]);
  });

  it("is not used if it belongs to another program", async () => {
    const queue = open();
    await queue.connect();
    await database.query("create table saq_pauses (theirs integer)");
    const { ended } = await startWorker(queue);
    await ended((await queue.enqueue("work")).key);
    await expect(queue.pause()).rejects.toThrow(refusal);
    expect(await queue.pauses()).toEqual([]);
    expect(await database.query("select * from saq_pauses")).toEqual([]);
  });

  it("may be dropped while workers run: nothing is paused then, and the next pause creates it again", async () => {
    const queue = open({ timers: { workerInfo: 0.1 } });
    await queue.pause();
    const { log, ended } = await startWorker(queue);
    const job = await queue.enqueue("work");
    await database.query("drop table saq_pauses");
    await ended(job.key);
    await log.saw(({ message }) => message.startsWith("Resumed: "));
    expect(await queue.resume()).toBe(false);
    await queue.pause();
    expect(await tables()).toEqual([["saq_pauses", comment]]);
    expect(log.lines.filter(({ level }) => level === "warn" || level === "error")).toEqual([]);
  });
});

describe("a worker", () => {
  it.each([0, 0.1])(
    "reads the pauses without a statement of its own, with pollInterval %d: each heartbeat or look has them",
    async (pollInterval) => {
      const queue = open({ pollInterval, timers: { workerInfo: 0.2 } });
      await queue.pause({ task: "other" });
      await queue.resume({ task: "other" });
      const { log, worker } = await startWorker(queue);
      const lists = jest.spyOn(queue.broker.pauses, "refresh");
      // As another program would, so that nobody is notified.
      await database.query("insert into saq_pauses values ($1, 'task', 'work', 0, null, 'sql', null)", [
        queue.name,
      ]);
      const line = await log.saw(({ message }) => message === `Paused: task work of queue ${queue.name}`);
      expect(line.fields.by).toBe("sql");
      await database.query("delete from saq_pauses");
      await log.saw(({ message }) => message === `Resumed: task work of queue ${queue.name}`);
      expect(lists).not.toHaveBeenCalled();
      await worker.stop();
    },
  );

  it("notices a table that appears without a notification", async () => {
    const queue = open({ timers: { workerInfo: 0.1 } });
    const { log } = await startWorker(queue);
    await open().pause({ task: "other" });
    await database.query("insert into saq_pauses values ($1, 'queue', '', 0, null, null, null)", [
      queue.name,
    ]);
    await log.saw(({ message }) => message === `Paused: queue ${queue.name}`);
  });
});

/** Stores jobs of a task that are due for an hour. */
async function fill(queue: Pick<Queue, "name">, task: string, count: number, group: string | null = null) {
  await database.query(
    `insert into saq_jobs (key, job, queue, status, group_key, scheduled)
     select 'fill-' || $4 || lpad(n::text, 7, '0'),
       convert_to(format('{"function":"%s","queue":"%s","key":"fill-%s%s","status":"queued"}',
         $2::text, $1::text, $4::text, lpad(n::text, 7, '0')), 'UTF8'),
       $1, 'queued', $5, floor(extract(epoch from now()))::bigint - 3600 from generate_series(1, $3::int) n`,
    [queue.name, task, count, randomBytes(4).toString("hex"), group],
  );
}

/** Number of rows of the jobs table that statements have read by an index since the last call. */
async function rowsRead(): Promise<number> {
  // The numbers of a session reach the statistics a moment after its statement.
  let last = -1;
  await until(async () => {
    const [row] = await database.query<{ read: number }>(
      "select idx_tup_fetch::float8 as read from pg_stat_user_tables where relname = 'saq_jobs'",
    );
    const same = row?.read === last;
    last = row?.read ?? 0;
    if (!same) await new Promise((resolve) => setTimeout(resolve, 1_100));
    return same;
  });
  return last;
}

describe("a claim while a task is paused", () => {
  const request = (limit: number, grouped = false, groups: string[] = []) => ({
    workerId: "worker-1",
    limit,
    grouped,
    priorities: [0, 10] as const,
    excluded: { tasks: ["work"], groups },
  });

  it("reads past its jobs once, and later claims begin behind them", async () => {
    const queue = open();
    await queue.connect();
    await fill(queue, "work", 3_000);
    const claim = async (limit: number) =>
      (await queue.broker.claim(request(limit))).jobs.map(({ key }) => key);
    const enqueue = async () =>
      (await queue.enqueue("other", undefined, { scheduled: Math.floor(Date.now() / 1_000) - 60 })).key;
    const keys = [await enqueue(), await enqueue()];
    const before = await rowsRead();
    expect(await claim(1)).toEqual([keys[0]]);
    const first = (await rowsRead()) - before;
    expect(first).toBeGreaterThan(3_000);
    expect(await claim(1)).toEqual([keys[1]]);
    for (let n = 0; n < 5; n++) expect(await claim(10)).toEqual([]);
    keys.push((await queue.enqueue("other")).key);
    expect(await claim(10)).toEqual([keys[2]]);
    expect((await rowsRead()) - before - first).toBeLessThan(500);
  }, 60_000);

  it("of grouped jobs also reads past them once", async () => {
    const queue = open();
    await queue.connect();
    await fill(queue, "work", 12_000, "g");
    await queue.enqueue("other", undefined, { groupKey: "h" });
    const found: string[] = [];
    const claim = async () => {
      const { jobs, more } = await queue.broker.claim(request(10, true));
      found.push(...jobs.map(({ key }) => key));
      return more;
    };
    // Each claim reads 5,000 jobs at most, and says that there are more.
    expect([await claim(), await claim(), found.length]).toEqual([true, true, 0]);
    expect([await claim(), found.length, await claim()]).toEqual([true, 1, false]);
  });

  it("leaves a paused group without a look at its jobs", async () => {
    const queue = open();
    await queue.connect();
    await fill(queue, "other", 2_000, "g");
    const job = await queue.enqueue("other", undefined, { groupKey: "h" });
    const { jobs } = await queue.broker.claim({
      ...request(10, true),
      excluded: { tasks: [], groups: ["g"] },
    });
    expect(jobs.map(({ key }) => key)).toEqual([job.key]);
  });
});

describe("where a claim begins", () => {
  const clock = 1_000_000_000_000;
  const read = (until: [priority: number, scheduled: number, place: number] | null, tookMs = 1) => ({
    until: until && { priority: until[0], scheduled: until[1], place: until[2] },
    sentAt: clock,
    tookMs,
  });
  const beginning = [[], [], [], -1e12, -32_768, -1e12];
  const recent = clock / 1_000 - 6;

  it("is the place until which the last one has read, and never within the last seconds", () => {
    const start = new ClaimStart();
    expect(start.values(["a"])).toEqual(beginning);
    start.onRead(read([0, 500, 7]));
    expect(start.values(["a"])).toEqual([[0], [500], [7], -1e12, 0, recent]);
    start.onRead(read([0, clock / 1_000 - 2, 9]));
    expect(start.values(["a"])).toEqual([[0], [recent], [2 ** 31 - 1], -1e12, 0, recent]);
    start.onRead(read(null));
    expect(start.values(["a"])).toEqual([[], [], [], recent, -32_768, -1e12]);
  });

  it("is for each priority a place of its own; those of lower numbers have been read", () => {
    const start = new ClaimStart();
    start.values(["a"]);
    start.onRead(read([5, 500, 7]));
    start.onRead(read([2, 400, 3]));
    expect(start.values(["a"])).toEqual([[5, 2], [500, 400], [7, 3], -1e12, 2, recent]);
    start.onRead(read([5, 600, 8]));
    expect(start.values(["a"])).toEqual([[5], [600], [8], -1e12, 5, recent]);
  });

  it("is the beginning after some time, later if that was slow, and at once for other tasks", () => {
    let now = 0;
    const time = jest.spyOn(performance, "now").mockImplementation(() => now);
    try {
      const start = new ClaimStart();
      start.values(["a"]);
      start.onRead(read([0, 500, 7]));
      now = 9_999;
      expect(start.values(["a"])).not.toEqual(beginning);
      now = 10_000;
      expect(start.values(["a"])).toEqual(beginning);
      start.onRead(read(null, 700));
      now = 20_000;
      expect(start.values(["a"])).not.toEqual(beginning);
      expect(start.values(["a", "b"])).toEqual(beginning);
      start.onRead(read(null, 700));
      start.onRead(read(null, 300));
      now = 69_999;
      expect(start.values(["a", "b"])).not.toEqual(beginning);
      now = 70_000;
      expect(start.values(["a", "b"])).toEqual(beginning);
    } finally {
      time.mockRestore();
    }
  });
});
