import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { beforeEach, describe, expect, it, jest } from "@jest/globals";
import { ensureSchema } from "../../../templates/backend/saq/postgres/schema/schema.js";
import { makeRole } from "../support/dml-role.js";
import { watchOverlaps } from "../support/overlaps.js";
import { pythonTables, version1, version2 } from "../support/python-tables.js";
import { openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const tasks = { double: async (_ctx: unknown, { n }: { n: number }) => n * 2 };

beforeEach(async () => {
  await database.query("drop table if exists saq_jobs, saq_stats, saq_versions cascade");
  await database.query("drop function if exists saq_stamp_v3");
});

const columnsOf = async (table: string) =>
  (
    await database.query<{ name: string; type: string }>(
      `select column_name as name, data_type || case when is_nullable = 'NO' then ' not null' else '' end as type
       from information_schema.columns where table_schema = 'public' and table_name = $1 order by ordinal_position`,
      [table],
    )
  ).map(({ name, type }) => `${name} ${type}`);

const indexesOf = async (table: string) =>
  (
    await database.query<{ indexname: string }>(
      "select indexname from pg_indexes where schemaname = 'public' and tablename = $1 order by 1",
      [table],
    )
  ).map(({ indexname }) => indexname);

const versions = async () => database.query<{ version: number }>("select version from saq_versions");

async function runsAJob(): Promise<void> {
  const queue = openQueue(database, tasks);
  const { ended } = await startWorker(queue);
  const job = await queue.enqueue("double", { n: 21 });
  await ended(job.key);
  expect((await job.refresh()).result).toBe(42);
}

describe("a fresh database", () => {
  it("P-2: gets SAQ's tables with SAQ's columns, at version 3", async () => {
    await openQueue(database, tasks).connect();
    expect(await versions()).toEqual([{ version: 3 }]);
    expect(await columnsOf("saq_jobs")).toEqual([
      "key text not null",
      "lock_key integer not null",
      "job bytea not null",
      "queue text not null",
      "status text not null",
      "priority smallint not null",
      "group_key text",
      "scheduled bigint not null",
      "expire_at bigint",
    ]);
    expect(await columnsOf("saq_stats")).toEqual([
      "worker_id text not null",
      "stats jsonb",
      "expire_at bigint",
      "metadata jsonb",
      "queue_key text",
    ]);
    expect(await columnsOf("saq_versions")).toEqual(["version integer"]);
    await runsAJob();
  });

  it("P-6: is set up once by ten processes that start at the same moment", async () => {
    const children = Array.from({ length: 10 }, () =>
      spawn(process.execPath, ["--import", "tsx", "test/saq/support/connect-once.ts", database.url], {
        stdio: ["pipe", "pipe", "inherit"],
      }),
    );
    try {
      const talks = children.map(talkWith);
      for (const talk of talks) expect(await talk.line()).toBe("loaded");
      for (const child of children) child.stdin.write("go\n");
      const keys = await Promise.all(talks.map((talk) => talk.line()));
      expect(await Promise.all(talks.map((talk) => talk.exit))).toEqual(children.map(() => 0));
      const stored = await database.query<{ key: string }>("select key from saq_jobs order by key");
      expect(stored.map(({ key }) => key)).toEqual(keys.toSorted());
      expect(await versions()).toEqual([{ version: 3 }]);
    } finally {
      for (const child of children) child.kill("SIGKILL");
    }
  }, 600_000);

  it("D-13: the sequence of lock_key starts again at 1 after its maximum", async () => {
    const queue = openQueue(database, tasks);
    await queue.connect();
    await database.query("select setval('saq_jobs_lock_key_seq', 2147483647)");
    const job = await queue.enqueue("double", { n: 1 });
    expect((await rowOf(database, job.key))?.lock_key).toBe(1);
  });

  it("reports which grant is missing if the role may not create tables", async () => {
    const role = await makeRole(database);
    const queue = openQueue({ url: role.url }, tasks);
    await expect(queue.connect()).rejects.toThrow(
      `The SAQ tables in schema "public" are missing or older than version 3, and role ${role.name} may not create them. ` +
        `Connect once with a role that may, or: grant create on schema "public" to ${role.name};`,
    );
  });
});

describe("tables made by Python", () => {
  it("P-1: are used without changes to their columns and indexes", async () => {
    await database.query(pythonTables);
    const before = [await columnsOf("saq_jobs"), await indexesOf("saq_jobs"), await indexesOf("saq_stats")];
    await runsAJob();
    expect([await columnsOf("saq_jobs"), await indexesOf("saq_jobs"), await indexesOf("saq_stats")]).toEqual(
      before,
    );
    expect(await versions()).toEqual([{ version: 3 }]);
  });

  it("P-6: get one document function when ten workers start at the same time, in each of twenty rounds", async () => {
    await database.query(pythonTables);
    const clients = await Promise.all(Array.from({ length: 10 }, () => database.connect()));
    for (let round = 0; round < 20; round++) {
      const names = await Promise.all(clients.map((client) => ensureSchema(client)));
      expect(names.every(({ hasTemporaryFunction }) => !hasTemporaryFunction)).toBe(true);
      await database.query("drop function saq_stamp_v3");
    }
  });

  it("P-6, D-11: a Python process that holds the set-up lock until it exits does not block a start", async () => {
    await database.query(pythonTables);
    const python = await database.connect();
    await python.query("select pg_try_advisory_lock(0, 0)");
    await runsAJob();
  });

  it("P-6: set-up waits while another process creates the tables, and then uses those tables", async () => {
    const other = await database.connect();
    await other.query("begin; select pg_advisory_xact_lock(0, 0)");
    const queue = openQueue(database, tasks);
    const connected = queue.connect();
    // A session whose last statement is `commit` has tried to get the lock and has not got it.
    await until(async () => {
      const sessions = await database.query<{ query: string }>(
        "select query from pg_stat_activity where datname = current_database() and application_name = 'saq'",
      );
      return sessions.some(({ query }) => query === "commit");
    });
    await other.query(pythonTables);
    await other.query("commit");
    await connected;
    expect(await indexesOf("saq_jobs")).toContain("saq_jobs_status_queue_group_key_idx");
    expect(await indexesOf("saq_jobs")).not.toContain("saq_jobs_ready_idx");
  });
});

describe("tables of another version", () => {
  it("P-6: are refused and left unchanged if they are newer, and the error names both versions", async () => {
    await database.query(pythonTables);
    await database.query("update saq_versions set version = 9");
    await expect(openQueue(database, tasks).connect()).rejects.toMatchObject({
      code: "schema_version",
      message:
        'The SAQ tables in schema "public" have version 9, but this engine supports version 3. ' +
        "A newer SAQ uses this database: update this application, or give it a database of its own (QUEUE_DSN).",
    });
    expect(await versions()).toEqual([{ version: 9 }]);
  });

  it("P-6: are refused even if only the version table exists and its version is newer", async () => {
    await database.query("create table saq_versions (version integer); insert into saq_versions values (9)");
    await expect(openQueue(database, tasks).connect()).rejects.toMatchObject({ code: "schema_version" });
    expect(await versions()).toEqual([{ version: 9 }]);
  });

  it.each([
    ["0 (empty version table)", `${version1} delete from saq_versions`],
    ["0 (no version table)", `${version1} drop table saq_versions`],
    ["1", version1],
    ["2", version1 + version2],
  ])("P-4: are upgraded from version %s to version 3 and keep their rows", async (_, tables) => {
    await database.query(tables);
    await database.query(
      `insert into saq_jobs (key, job, queue, status) values ('old', $1, 'other', 'queued')`,
      [Buffer.from('{"function":"double","queue":"other","key":"old","status":"queued"}')],
    );
    await runsAJob();
    expect(await versions()).toEqual([{ version: 3 }]);
    expect(await rowOf(database, "old")).toMatchObject({ status: "queued", priority: 0, group_key: null });
    expect(await indexesOf("saq_jobs")).toEqual([
      "saq_jobs_pkey",
      "saq_jobs_status_queue_group_key_idx",
      "saq_jobs_status_queue_priority_scheduled_idx",
    ]);
    expect(await columnsOf("saq_stats")).toContain("queue_key text");
    expect(await indexesOf("saq_stats")).toEqual([
      "saq_stats_expire_at_idx",
      "saq_stats_pkey",
      "saq_stats_queue_key_idx",
    ]);
  });
});

describe("the schema of the tables", () => {
  it("P-1: can be a separate schema on the search path", async () => {
    await database.query('create schema "My ""Queue"""');
    try {
      const url = new URL(database.url);
      url.searchParams.set("options", '-c search_path="My\\ ""Queue""",public');
      const queue = openQueue({ url: url.href }, tasks);
      const job = await queue.enqueue("double", { n: 1 });
      expect(await database.query('select key from "My ""Queue""".saq_jobs')).toEqual([{ key: job.key }]);
    } finally {
      await database.query('drop schema "My ""Queue""" cascade');
    }
  });

  it("is reported as missing if the search path names no existing schema", async () => {
    const url = new URL(database.url);
    url.searchParams.set("options", "-c search_path=nowhere");
    await expect(openQueue({ url: url.href }, tasks).connect()).rejects.toThrow(
      "The database role has no schema to use: no schema in its search_path exists.",
    );
  });
});

describe("a role that may only read and write rows", () => {
  it("runs jobs with the document function in a temporary schema", async () => {
    await database.query(pythonTables);
    const role = await makeRole(database);
    const queue = openQueue({ url: role.url }, tasks);
    const { ended } = await startWorker(queue);
    const jobs = await Promise.all([1, 2, 3].map((n) => queue.enqueue("double", { n })));
    for (const job of jobs) await ended(job.key);
    expect(await Promise.all(jobs.map(async (job) => (await job.refresh()).result))).toEqual([2, 4, 6]);
    const functions = await database.query<{ schema: string }>(
      `select n.nspname as schema from pg_proc p join pg_namespace n on n.oid = p.pronamespace where proname like 'saq_stamp%'`,
    );
    expect(functions.length).toBeGreaterThan(0);
    expect(functions.every(({ schema }) => schema.startsWith("pg_temp"))).toBe(true);
  });

  it("creates the document function on each connection before other statements, which do not overlap it", async () => {
    await database.query(pythonTables);
    const role = await makeRole(database);
    const overlaps = watchOverlaps();
    try {
      const queue = openQueue({ url: role.url }, tasks, { maxSize: 5 });
      await queue.connect();
      const looks = Array.from({ length: 8 }, () =>
        queue.broker.claim({ workerId: "worker-1", limit: 1, priorities: [0, 9], grouped: false }),
      );
      expect(await Promise.all(looks)).toEqual(looks.map(() => ({ jobs: [], more: false })));
      const functions = await database.query("select 1 from pg_proc where proname like 'saq_stamp%'");
      expect(functions.length).toBeGreaterThan(1);
      expect(overlaps).toEqual([]);
    } finally {
      jest.restoreAllMocks();
    }
  });

  it("uses the document function that a role with more rights has created", async () => {
    await openQueue(database, tasks).connect();
    const setting = (change: string) =>
      database.query(`do $$ begin execute format('alter database %I ${change}', current_database()); end $$`);
    // The server counts the calls of sessions that begin from now on.
    await setting("set track_functions = ''pl''");
    try {
      const role = await makeRole(database);
      const queue = openQueue(
        { url: role.url },
        {
          fail: () => {
            throw new Error("no");
          },
        },
      );
      const { worker, ended } = await startWorker(queue);
      const job = await queue.enqueue("fail");
      expect(await ended(job.key)).toBe("Failed fail");
      const functions = await database.query(
        `select n.nspname as schema from pg_proc p join pg_namespace n on n.oid = p.pronamespace where proname like 'saq_stamp%'`,
      );
      expect(functions).toEqual([{ schema: "public" }]);
      await worker.stop();
      // A session reports its calls when it ends, at the latest.
      await queue.close();
      await until(async () => {
        const [row] = await database.query<{ calls: number }>(
          "select calls::int from pg_stat_user_functions where funcname like 'saq_stamp%'",
        );
        return (row?.calls ?? 0) > 0;
      });
    } finally {
      await setting("reset track_functions");
    }
  });
});

function talkWith(child: ChildProcess) {
  if (!child.stdout) throw new Error("the child has no output");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const exit = new Promise<number | null>((resolve) => child.once("exit", resolve));
  return { exit, line: async () => String((await lines.next()).value) };
}
