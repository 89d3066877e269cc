/** Databases and roles in which the tables cannot simply be made and used: locks, encodings, missing rights. */
import { readFile } from "node:fs/promises";
import { afterEach, describe, expect, it } from "@jest/globals";
import type pg from "pg";
import type { Context } from "../../../templates/backend/saq/index.js";
import { cronJob } from "../../../templates/backend/saq/index.js";
import { LogBook } from "../support/log-book.js";
import { version1 } from "../support/python-tables.js";
import {
  closeAfterTest,
  insertRow,
  openQueue,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";

const database = useDatabase();
const mail = { jobs: "mail_jobs", stats: "mail_stats", versions: "mail_versions" };

let tries = 0;
const tasks = {
  double: async (_ctx: unknown, { n }: { n: number }) => n * 2,
  again: async (ctx: Context) => {
    await ctx.job.update({ progress: 0.5, meta: { seen: true } });
    if (++tries < 2) throw new Error("once more");
    return "€";
  },
  tick: async () => {},
};

afterEach(async () => {
  await database.query(
    "drop schema public cascade; create schema public; drop schema if exists queue cascade",
  );
});

/** Opens a session that, like a Python process, holds the set-up lock as long as it lives. */
async function startPython(): Promise<pg.Client> {
  const python = await database.connect();
  await python.query("select pg_try_advisory_lock(0, 0)");
  return python;
}

async function runOneJob(options: object): Promise<void> {
  const queue = openQueue(database, tasks, options);
  const { ended } = await startWorker(queue);
  const job = await queue.enqueue("double", { n: 4 });
  await ended(job.key);
  expect((await job.refresh()).result).toBe(8);
}

describe("a database in which a Python process holds the set-up lock", () => {
  it("P-6: a first start creates tables that have other names or are in another schema", async () => {
    await startPython();
    await openQueue(database, tasks, { tables: mail }).connect();
    await database.query("create schema queue");
    await openQueue(database, tasks, { tables: { schema: "queue" } }).connect();
    await runOneJob({ tables: mail });
  });

  it("P-6: a first start creates tables with SAQ's default names after a delay", async () => {
    await startPython();
    await runOneJob({});
    expect(await database.query("select version from saq_versions")).toEqual([{ version: 3 }]);
  });

  it("P-6: six first starts at the same time create the tables once", async () => {
    await startPython();
    const queues = Array.from({ length: 6 }, () => openQueue(database, tasks, { tables: mail }));
    await Promise.all(queues.map((queue) => queue.connect()));
    expect(await database.query("select version from mail_versions")).toEqual([{ version: 3 }]);
  });
});

describe("a database with special settings", () => {
  it("P-2: can have a publication for all tables, with new tables or tables of an older version", async () => {
    await database.query("create publication everything for all tables");
    try {
      await runOneJob({});
      await database.query("drop table saq_jobs, saq_stats, saq_versions");
      await database.query(version1);
      await runOneJob({});
      expect(await database.query("select version from saq_versions")).toEqual([{ version: 3 }]);
    } finally {
      await database.query("drop publication everything");
    }
  });

  it.each(["LATIN1", "SQL_ASCII"])("is refused if its encoding is %s, not UTF8", async (encoding) => {
    const name = `saq_test_${encoding.toLowerCase()}_${process.pid}`;
    await database.query(`create database ${name} encoding '${encoding}' template template0 locale 'C'`);
    closeAfterTest({ close: () => database.query(`drop database ${name} with (force)`) });
    const url = Object.assign(new URL(database.url), { pathname: `/${name}` }).href;
    await expect(openQueue({ url }, tasks).connect()).rejects.toMatchObject({
      code: "config",
      message:
        `Database "${name}" has the encoding ${encoding}, which cannot store most texts of jobs. The queue needs a ` +
        "database in UTF8: create database NAME encoding 'UTF8' template template0;",
    });
  });
});

describe("a role that may only read and write rows", () => {
  const name = `saq_app_${process.pid}`;

  /** Makes a role with exactly the rights that the guide lists. Returns its address of the database. */
  async function makeDocumentedRole(): Promise<string> {
    const guide = await readFile(new URL("../../../templates/docs/guide.md", import.meta.url), "utf8");
    const grants =
      /### A role that may only read and write rows[\s\S]*?```sql\n([\s\S]*?)```/.exec(guide)?.[1] ?? "";
    await database.query(
      "revoke create on schema public from public; revoke usage on schema public from public",
    );
    await database.query(grants.replaceAll(/\bapp\b/g, name));
    closeAfterTest({ close: () => database.query(`drop owned by ${name}; drop role ${name}`) });
    return Object.assign(new URL(database.url), { username: name, password: "secret" }).href;
  }

  async function runEverything(url: string, log: LogBook, options: object = {}): Promise<void> {
    tries = 0;
    const scheduledTasks = [cronJob("tick", { cron: "* * * * * *" })];
    const queue = openQueue({ url }, tasks, { logger: log, scheduledTasks, ...options });
    const { log: workerLog } = await startWorker(queue);
    const keys: string[] = [];
    for (const job of [
      await queue.enqueue("double", { n: 1 }),
      await queue.enqueue("double", { n: 2 }, { key: `chosen ${queue.name}`, groupKey: "g" }),
      await queue.enqueue("again", undefined, { retries: 3 }),
    ])
      if (job) keys.push(job.key);
    const key = `python ${queue.name}`;
    const document = `{"function": "double", "kwargs": {"n": 4}, "queue": "${queue.name}", "key": "${key}", "queued": 1, "status": "queued"}`;
    await insertRow(database, { key, queue: queue.name, document });
    for (const one of [...keys, key]) await until(async () => (await queue.job(one))?.status === "complete");
    expect((await queue.job(keys[2] ?? ""))?.result).toBe("€");
    expect(await queue.apply("double", { n: 5 })).toBe(10);
    const [ticked] = (await queue.broker.schedules.list()) ?? [];
    expect(ticked?.name).toBe("tick");
    await queue.schedules.pause("tick");
    expect((await queue.workers()).length).toBe(1);
    expect(workerLog.lines.filter(({ level }) => level === "error")).toEqual([]);
  }

  /** Makes everything that the tables' owner makes at a first start. */
  async function makeTables(): Promise<void> {
    const owner = openQueue(database, tasks);
    await owner.connect();
    await owner.broker.schedules.list();
    await owner.close();
  }

  const functions = async () =>
    (
      await database.query<{ schema: string }>(
        `select n.nspname as schema from pg_proc p join pg_namespace n on n.oid = p.pronamespace where proname like 'saq_stamp%'`,
      )
    ).map(({ schema }) => schema);

  const withTemporary = async (isAllowed: boolean) => {
    const [{ db } = { db: "" }] = await database.query<{ db: string }>("select current_database() as db");
    await database.query(
      `${isAllowed ? "grant" : "revoke"} temporary on database ${db} ${isAllowed ? "to" : "from"} public`,
    );
  };

  it("can use every feature with the rights in the guide, even if it may not create temporary functions", async () => {
    await makeTables();
    await withTemporary(false);
    try {
      const log = new LogBook();
      await runEverything(await makeDocumentedRole(), log);
      expect(await functions()).toEqual(["public"]);
      expect(log.lines.filter(({ level }) => level === "warn")).toEqual([]);
    } finally {
      await withTemporary(true);
    }
  });

  it.each([
    ["with its own connections", {}],
    ["with pollInterval", { pollInterval: 0.05 }],
  ])("can use every feature without a document function and logs one warning: %s", async (_name, options) => {
    await makeTables();
    const url = await makeDocumentedRole();
    await database.query("drop function saq_stamp_v3");
    await withTemporary(false);
    try {
      const log = new LogBook();
      await runEverything(url, log, options);
      expect(await functions()).toEqual([]);
      const warnings = log.lines.filter(({ message }) => message.includes("no document function"));
      expect(warnings.map(({ level }) => level)).toEqual(["warn"]);
    } finally {
      await withTemporary(true);
    }
  });
});
