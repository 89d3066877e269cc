/** Tables with other names, two sets of tables in one database, and the objects that are made beside them. */
import { afterEach, describe, expect, it } from "@jest/globals";
import { defineQueue, type QueueOptions } from "../../../templates/backend/saq/config/index.js";
import { connectBrokers } from "../../../templates/backend/saq/connect.js";
import { ConfigError } from "../../../templates/backend/saq/errors.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { makeRole } from "../support/dml-role.js";
import {
  claim,
  closeAfterTest,
  openQueue,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";

const database = useDatabase();
const tasks = { double: async (_ctx: unknown, { n }: { n: number }) => n * 2 };
const mail = { jobs: "mail_jobs", stats: "mail_stats", versions: "mail_versions" };
const odd = { schema: 'a "b".c', jobs: 'Jobs "of".mine', stats: "S", versions: "V's" };

afterEach(async () => {
  await database.query(
    `drop schema public cascade; create schema public; drop schema if exists "a ""b"".c" cascade`,
  );
});

/** Opens queues of one process, which share its connections. */
function openTogether(...options: Partial<QueueOptions<string, typeof tasks>>[]): Queue<typeof tasks>[] {
  const configs = options.map((option) =>
    defineQueue({ name: "default", dsn: database.url, tasks, ...option }),
  );
  return connectBrokers(configs, silentLogger).map((broker, index) =>
    closeAfterTest(new Queue(configs[index] as (typeof configs)[number], broker)),
  );
}

const relations = async (schema = "public") =>
  (
    await database.query<{ name: string }>(
      `select relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname = $1 and relkind in ('r', 'i', 'S') order by relname collate "C"`,
      [schema],
    )
  ).map(({ name }) => name);

describe("table names", () => {
  it("P-1, D-12: also name the indexes and the sequence, and no object has a default SAQ name", async () => {
    const [queue] = openTogether({ tables: mail });
    await queue?.connect();
    expect(await relations()).toEqual([
      "mail_jobs",
      "mail_jobs_failed_idx",
      "mail_jobs_lock_key_seq",
      "mail_jobs_pkey",
      "mail_jobs_ready_group_idx",
      "mail_jobs_ready_group_order_idx",
      "mail_jobs_ready_idx",
      "mail_jobs_running_group_idx",
      "mail_jobs_running_idx",
      "mail_stats",
      "mail_stats_expire_at_idx",
      "mail_stats_pkey",
      "mail_stats_queue_key_idx",
      "mail_versions",
    ]);
    expect(await database.query("select version from mail_versions")).toEqual([{ version: 3 }]);
    const [sequence] = await database.query(
      "select cycle from pg_sequences where sequencename = 'mail_jobs_lock_key_seq'",
    );
    expect(sequence).toEqual({ cycle: true });
  });

  it("P-1: may contain any character, in a schema with any name", async () => {
    await database.query('create schema "a ""b"".c"');
    const queue = openQueue(database, tasks, { tables: odd });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("double", { n: 4 }, { groupKey: "g" });
    await ended(job.key);
    expect((await job.refresh()).result).toBe(8);
    expect(await database.query('select status from "a ""b"".c"."Jobs ""of"".mine"')).toEqual([
      { status: "complete" },
    ]);
    expect(await relations()).toEqual([]);
  });

  it("D-12: determine the name of the schedule table, also when they end with saq_jobs", async () => {
    for (const jobs of ["saq_jobs", "my_saq_jobs", 'x"saq_jobs', "mail_jobs"]) {
      const [queue] = openTogether({
        name: jobs,
        tables: { jobs, stats: `${jobs}_s`, versions: `${jobs}_v` },
      });
      await queue?.connect();
      expect(await queue?.broker.schedules.list()).toEqual([]);
    }
    expect((await relations()).filter((name) => name.endsWith("_cron"))).toEqual([
      "mail_jobs_cron",
      "my_saq_jobs_cron",
      "saq_cron",
      'x"saq_jobs_cron',
    ]);
  });

  it("P-1: a missing schema causes an error that says how to create it", async () => {
    const queue = openQueue(database, tasks, { tables: { schema: "nowhere" } });
    await expect(queue.connect()).rejects.toThrow(
      'The schema "nowhere" of tables.schema does not exist. Create it: create schema "nowhere";',
    );
  });

  it.each<[Partial<Record<string, unknown>>, string]>([
    [
      { jobs: "mail_jobs" },
      'tables.jobs "mail_jobs" and tables.stats "saq_stats" need a tables.versions of their own, got "saq_versions"; for instance "mail_jobs_versions"',
    ],
    [{ jobs: "a", stats: "a", versions: "b" }, 'must be three different names, got "a", "a" and "b"'],
    [
      { jobs: "", versions: "b" },
      'tables.jobs must be a name of 1 to 40 bytes, without a schema and without quotes, got ""',
    ],
    [{ jobs: "é".repeat(21), versions: "b" }, "tables.jobs must be a name of 1 to 40 bytes"],
    [
      { versions: 7 },
      "tables.versions must be a name of 1 to 40 bytes, without a schema and without quotes, got 7",
    ],
    [{ jbos: "x" }, "there is no option tables.jbos (known: schema, jobs, stats, versions)"],
  ])("D-12, D-76: %p is refused, and the error names the value and what is allowed", (given, message) => {
    const define = () => defineQueue({ name: "default", dsn: database.url, tasks, tables: given });
    expect(define).toThrow(ConfigError);
    expect(define).toThrow(message);
  });

  it("D-12: can be 40 bytes long, and the index names derived from them still fit", async () => {
    const [jobs = "", stats = "", versions = ""] = ["j", "s", "v"].map((letter) => letter.repeat(40));
    const queue = openQueue(database, tasks, { tables: { jobs, stats, versions } });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("double", { n: 1 });
    await ended(job.key);
    expect(await relations()).toContain(`${jobs}_ready_group_order_idx`);
  });
});

describe("two sets of tables in one database", () => {
  it("D-12: keep jobs with the same queue and key separate on shared connections", async () => {
    const [ours, mails] = openTogether({}, { tables: mail });
    if (!ours || !mails) throw new Error("no queues");
    for (let round = 0; round < 3; round++) {
      await ours.enqueue("double", { n: 1 }, { key: `k${round}` });
      await mails.enqueue("double", { n: 2 }, { key: `k${round}`, groupKey: "g" });
    }
    expect(await mails.counts()).toMatchObject({ queued: 3 });
    // Each statement is prepared on the shared connections for both sets of tables, in turn.
    for (let round = 0; round < 3; round++) {
      const [one] = await claim(ours, { limit: 1 });
      const [two] = await claim(mails, { limit: 1, grouped: true });
      expect([one?.key, two?.key]).toEqual([`k${round}`, `k${round}`]);
      if (!one || !two) throw new Error("nothing was claimed");
      expect(await settle(ours, settlement(one, "complete", { result: "ours" }))).toBe("applied");
      expect(await settle(mails, settlement(two, "failed", { error: "mails" }))).toBe("applied");
    }
    expect(await ours.counts()).toMatchObject({ queued: 0, complete: 3, failed: 0 });
    expect(await mails.counts()).toMatchObject({ queued: 0, complete: 0, failed: 3 });
    const sessions = await database.query(
      "select 1 from pg_stat_activity where datname = current_database() and application_name = 'saq'",
    );
    expect(sessions.length).toBeLessThanOrEqual(3);
  });

  it("D-12: share no worker rows and no recorded version", async () => {
    const first = openQueue(database, tasks, { name: "default" });
    await first.connect();
    const second = openQueue(database, tasks, { name: "default", tables: mail });
    await startWorker(second);
    await until(async () => (await second.workers()).length === 1);
    expect(await first.workers()).toEqual([]);
    await database.query("update saq_versions set version = 9");
    await openQueue(database, tasks, { name: "default", tables: mail }).connect();
  });

  it("D-12: missing tables are created even when their version is already recorded", async () => {
    await database.query(
      "create table mail_versions (version integer); insert into mail_versions values (3)",
    );
    const queue = openQueue(database, tasks, { tables: mail });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("double", { n: 5 });
    await ended(job.key);
    expect(await database.query("select version from mail_versions")).toEqual([{ version: 3 }]);
  });
});

describe("lockKeyspace", () => {
  it("P-36: is the keyspace of the lock that is held while the tables are created", async () => {
    const other = await database.connect();
    await other.query("begin; select pg_advisory_xact_lock(0, 0)");
    await openQueue(database, tasks, { lockKeyspace: 77 }).connect();
    await other.query("rollback");
    await other.query("drop table saq_jobs");
    await other.query("begin; select pg_advisory_xact_lock(77, 0)");
    const connected = openQueue(database, tasks, { lockKeyspace: 77 }).connect();
    await until(async () => {
      const sessions = await database.query<{ query: string }>(
        "select query from pg_stat_activity where datname = current_database() and application_name = 'saq'",
      );
      return sessions.some(({ query }) => query === "commit");
    });
    expect(await relations()).not.toContain("saq_jobs");
    await other.query("rollback");
    await connected;
    expect(await relations()).toContain("saq_jobs");
  });
});

describe("a role without CREATE in poll mode", () => {
  it("D-17: runs jobs without the saq_stamp function", async () => {
    await openQueue(database, tasks).connect();
    await database.query("drop function saq_stamp_v3");
    const { url } = await makeRole(database);
    const queue = openQueue({ url }, tasks, { pollInterval: 0.05 });
    const { ended } = await startWorker(queue);
    const jobs = [
      await queue.enqueue("double", { n: 3 }),
      await queue.enqueue("double", { n: 4 }, { groupKey: "g" }),
    ];
    for (const { key } of jobs) await ended(key);
    expect(await Promise.all(jobs.map(async (job) => (await job.refresh()).result))).toEqual([6, 8]);
    expect(await database.query("select 1 from pg_proc where proname like 'saq_stamp%'")).toEqual([]);
  });
});
