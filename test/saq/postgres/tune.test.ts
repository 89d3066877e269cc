/** Changes Python's tables to the engine's layout: what is planned, what is done, and what stays as it is. */
import { beforeEach, describe, expect, it } from "@jest/globals";
import type pg from "pg";
import {
  describePlan,
  openTuneClient,
  planTune,
  runTune,
  type TuneOptions,
} from "../../../templates/backend/saq/postgres/schema/tune.js";
import { makeRole } from "../support/dml-role.js";
import { pythonTables, version1 } from "../support/python-tables.js";
import { closeAfterTest, openQueue, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const tasks = { double: async (_ctx: unknown, { n }: { n: number }) => n * 2 };

beforeEach(() => database.query("drop schema public cascade; create schema public"));
const openClient = async (url = database.url): Promise<pg.Client> => {
  const client = await openTuneClient(url);
  closeAfterTest({ close: () => client.end() });
  return client;
};

async function tune(options?: TuneOptions) {
  const client = await openClient();
  return runTune(client, await planTune(client, options));
}

/** Reads the whole definition of the tables: columns, indexes, settings, sequence. */
const definition = () =>
  database.query(
    `select 'column' as kind, attrelid::regclass || '.' || attname as name, format_type(atttypid, atttypmod)
        || attnotnull || coalesce(pg_get_expr(adbin, adrelid), '') as text
      from pg_attribute a join pg_class c on c.oid = attrelid left join pg_attrdef on adrelid = attrelid and adnum = attnum
      where c.relnamespace = 'public'::regnamespace and relkind = 'r' and attnum > 0
    union all select 'index', indexname, indexdef from pg_indexes where schemaname = 'public'
    union all select 'table', relname, coalesce(reloptions::text, '') || relfilenode from pg_class
      where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> 'saq_versions'
    union all select 'sequence', sequencename, cycle::text || max_value from pg_sequences where schemaname = 'public'
    order by 1, 2`,
  );

const indexes = async () =>
  (
    await database.query<{ name: string }>(
      `select c.relname || case when i.indisvalid then '' else ' (invalid)' end as name
       from pg_index i join pg_class c on c.oid = i.indexrelid
       where i.indrelid = 'saq_jobs'::regclass order by c.relname collate "C"`,
    )
  ).map(({ name }) => name);

const saqs = ["saq_jobs_status_queue_group_key_idx", "saq_jobs_status_queue_priority_scheduled_idx"];
const ours = [
  "saq_jobs_failed_idx",
  "saq_jobs_ready_group_idx",
  "saq_jobs_ready_group_order_idx",
  "saq_jobs_ready_idx",
  "saq_jobs_running_group_idx",
  "saq_jobs_running_idx",
];

describe("start-up", () => {
  it("leaves the definition of Python's tables unchanged, also while jobs run on them", async () => {
    await database.query(pythonTables);
    const before = await definition();
    const queue = openQueue(database, tasks);
    const { ended } = await startWorker(queue);
    const jobs = [
      await queue.enqueue("double", { n: 1 }),
      await queue.enqueue("double", { n: 2 }, { groupKey: "g" }),
    ];
    for (const { key } of jobs) await ended(key);
    expect(await definition()).toEqual(before);
  });

  it("does not alter the engine's own tables after their creation", async () => {
    await openQueue(database, tasks).connect();
    await database.query("drop index saq_jobs_ready_idx");
    const before = await definition();
    await openQueue(database, tasks).connect();
    expect(await definition()).toEqual(before);
  });
});

describe("a tune plan", () => {
  it("lists what Python's tables lack, and changes nothing", async () => {
    await database.query(pythonTables);
    const before = await definition();
    const plan = await planTune(await openClient());
    expect(plan.steps.map(({ what }) => what)).toEqual([
      "create index saq_jobs_ready_idx",
      "create index saq_jobs_ready_group_idx",
      "create index saq_jobs_ready_group_order_idx",
      "create index saq_jobs_running_idx",
      "create index saq_jobs_running_group_idx",
      "create index saq_jobs_failed_idx",
      "set autovacuum for a table whose rows change often",
      "let the sequence public.saq_jobs_lock_key_seq start over at its end",
      "create the engine's functions",
    ]);
    const text = describePlan(plan);
    expect(text).toContain(
      '"public"."saq_jobs": 9 steps to do.\n1. create index saq_jobs_ready_idx: with it, claims and sweeps',
    );
    expect(text).toContain(
      `create index concurrently "saq_jobs_ready_idx" on "public"."saq_jobs" (queue, priority, scheduled, lock_key) where status = 'queued' and group_key is null;`,
    );
    expect(text).toContain(
      `create or replace function "public"."saq_enqueue"(queue text, function text, kwargs jsonb default null, options jsonb default '{}');`,
    );
    expect(text).toContain(`Note: ${saqs.join(" and ")} stay, because Python's claims use them.`);
    expect(await definition()).toEqual(before);
    expect(await database.query("select 1 from pg_proc where proname like 'saq%'")).toEqual([]);
  });

  it("is empty for the engine's own tables", async () => {
    await openQueue(database, tasks).connect();
    const plan = await planTune(await openClient());
    expect(plan.steps).toEqual([]);
    expect(describePlan(plan)).toBe('"public"."saq_jobs": nothing to do.');
  });

  it.each([
    ["no tables exist", "select 1", "There are no SAQ tables in schema"],
    [
      "the tables have version 1",
      version1,
      "have version 1, but tune supports version 3. Start a worker once: it upgrades them.",
    ],
    [
      "the tables have version 9",
      `${pythonTables} update saq_versions set version = 9`,
      "have version 9, but tune supports version 3. Update",
    ],
  ])("is refused when %s", async (_, tables, message) => {
    await database.query(tables);
    await expect(planTune(await openClient())).rejects.toThrow(message);
  });
});

describe("a tune run", () => {
  it("D-13: makes all changes without rewriting the table, and a second run has nothing to do", async () => {
    await database.query(pythonTables);
    await database.query(
      `insert into saq_jobs (key, job, queue, status) select 'k' || n, '{}', 'q', 'complete' from generate_series(1, 500) n`,
    );
    const file = () => database.query("select pg_relation_filenode('saq_jobs') as node");
    const before = await file();
    const results = await tune();
    expect(results.map(({ problem }) => problem)).toEqual(results.map(() => null));
    expect(await file()).toEqual(before);
    expect(await indexes()).toEqual(["saq_jobs_pkey", ...ours, ...saqs].toSorted());
    expect(await database.query("select cycle from pg_sequences")).toEqual([{ cycle: true }]);
    expect(await database.query("select reloptions from pg_class where oid = 'saq_jobs'::regclass")).toEqual([
      { reloptions: ["autovacuum_vacuum_scale_factor=0.01", "autovacuum_vacuum_cost_delay=0"] },
    ]);
    expect(await database.query("select version from saq_versions")).toEqual([{ version: 3 }]);
    expect(await tune()).toEqual([]);
    const queue = openQueue(database, tasks);
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("double", { n: 3 }, { groupKey: "g" });
    await ended(job.key);
    expect((await job.refresh()).result).toBe(6);
  });

  it("drops SAQ's own job indexes with python: false, and creates them with python: true", async () => {
    await database.query(pythonTables);
    await tune({ python: false });
    expect(await indexes()).toEqual([...ours, "saq_jobs_pkey"].toSorted());
    expect(await tune()).toEqual([]);
    await tune({ python: true });
    expect(await indexes()).toEqual([...ours, "saq_jobs_pkey", ...saqs].toSorted());
  });

  it("D-12: finds SAQ's own indexes on tables with other names, where the indexes keep Python's names", async () => {
    await database.query(pythonTables);
    for (const table of ["jobs", "stats", "versions"])
      await database.query(`alter table saq_${table} rename to py_${table}`);
    const tables = { schema: null, jobs: "py_jobs", stats: "py_stats", versions: "py_versions" };
    await tune({ tables, python: true });
    const named = async () => {
      const rows = await database.query<{ name: string }>(
        `select c.relname as name from pg_index i join pg_class c on c.oid = i.indexrelid
         where i.indrelid in ('py_jobs'::regclass, 'py_stats'::regclass)`,
      );
      return rows.map(({ name }) => name).toSorted();
    };
    const stats = ["saq_stats_expire_at_idx", "saq_stats_pkey", "saq_stats_queue_key_idx"];
    const own = ours.map((name) => name.replace("saq_jobs", "py_jobs"));
    expect(await named()).toEqual([...own, ...saqs, ...stats, "saq_jobs_pkey"].toSorted());
    await tune({ tables, python: false });
    expect(await named()).toEqual([...own, ...stats, "saq_jobs_pkey"].toSorted());
  });

  it("continues after a step that an open transaction blocks, reports it, and the next run completes it", async () => {
    await database.query(pythonTables);
    const other = await database.connect();
    await other.query(
      "begin; lock table saq_jobs in access exclusive mode; select nextval('saq_jobs_lock_key_seq')",
    );
    const client = await openClient();
    const plan = await planTune(client, { python: false });
    const isQuick = ({ what }: { what: string }) => /autovacuum|sequence|functions/.test(what);
    const results = await runTune(client, { ...plan, steps: plan.steps.filter(isQuick) });
    expect(results.map(({ problem }) => problem)).toEqual([
      "canceling statement due to lock timeout; a transaction has been open for over 1 s: run tune again when it has ended",
      "canceling statement due to lock timeout; a transaction has been open for over 1 s: run tune again when it has ended",
      null,
    ]);
    await other.query("rollback");
    expect((await tune()).filter(({ problem }) => problem !== null)).toEqual([]);
    expect(await tune()).toEqual([]);
  });

  it("finds and rebuilds an index whose creation was cancelled", async () => {
    await database.query(pythonTables);
    const other = await database.connect();
    await other.query("begin; select txid_current()");
    await other.query("insert into saq_jobs (key, job, queue, status) values ('k', '{}', 'q', 'queued')");
    const client = await openClient();
    const running = tuneWith(client);
    await until(async () => (await indexes()).includes("saq_jobs_ready_idx (invalid)"));
    const { rows } = await other.query(
      "select pg_cancel_backend(pid) from pg_stat_activity where query like 'create index concurrently%' and datname = current_database()",
    );
    expect(rows).toHaveLength(1);
    await other.query("commit");
    const results = await running;
    expect(results[0]?.problem).toBe("canceling statement due to user request; run tune again");
    expect(results.slice(1).map(({ problem }) => problem)).toEqual(results.slice(1).map(() => null));
    expect(await indexes()).toContain("saq_jobs_ready_idx (invalid)");
    const plan = await planTune(client);
    expect(plan.steps.map(({ what, reason }) => `${what}: ${reason}`)).toEqual([
      "rebuild index saq_jobs_ready_idx: it was not finished; with it, claims and sweeps read only the rows that they need",
    ]);
    await runTune(client, plan);
    expect(await indexes()).toEqual(["saq_jobs_pkey", ...ours, ...saqs].toSorted());
  });

  it("reports that the owner of the tables must run tune when the role is not the owner", async () => {
    await database.query(pythonTables);
    const { url } = await makeRole(database);
    const client = await openClient(url);
    const before = await definition();
    for (const { problem } of await runTune(client, await planTune(client)))
      expect(problem).toMatch(/(must be owner of|permission denied).*; run tune as the owner of the tables$/);
    expect(await definition()).toEqual(before);
  });

  it("is refused while another tune of the same tables runs", async () => {
    await database.query(pythonTables);
    const [first, second] = [await openClient(), await openClient()];
    const other = await database.connect();
    await other.query(
      "begin; insert into saq_jobs (key, job, queue, status) values ('k', '{}', 'q', 'queued')",
    );
    const running = tuneWith(first);
    await until(async () => (await indexes()).includes("saq_jobs_ready_idx (invalid)"));
    await expect(tuneWith(second)).rejects.toThrow(
      'Another run of tune for "public"."saq_jobs" is in progress. Wait until it has ended, then run tune again.',
    );
    await other.query("commit");
    expect((await running).filter(({ problem }) => problem !== null)).toEqual([]);
  });
});

const tuneWith = async (client: pg.Client) => runTune(client, await planTune(client));
