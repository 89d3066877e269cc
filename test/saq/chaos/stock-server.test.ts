/**
 * Servers with settings that the embedded server of the other tests does not have: a JIT compiler, another default
 * isolation level, timeouts of a database. The workers are processes.
 */
import { afterAll, beforeAll, describe, expect, it, jest } from "@jest/globals";
import pg from "pg";
import {
  type StockPostgres,
  startStockPostgres,
  stockPostgresMissing,
} from "../../support/stock-postgres.js";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase, type TestDatabase } from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";

jest.setTimeout(600_000);

if (stockPostgresMissing)
  process.stderr.write(`${stockPostgresMissing}: the tests of stock servers are skipped.\n`);

const modes = [
  ["with its own connections", {}],
  ["behind a transaction pooler", { pollInterval: 0.2 }],
] as const;

(stockPostgresMissing ? describe.skip : describe)("the engine on a stock server", () => {
  let server: StockPostgres;

  beforeAll(async () => {
    // The server logs each plan, and with it whether the plan was compiled.
    const logged = { log_min_duration: "0", log_analyze: "on" };
    server = await startStockPostgres({
      settings: {
        session_preload_libraries: "auto_explain",
        ...Object.fromEntries(Object.entries(logged).map(([name, value]) => [`auto_explain.${name}`, value])),
      },
    });
  });
  afterAll(async () => {
    await endAllWorkers();
    await server?.stop();
  });

  /** Creates a database with its own settings. */
  async function databaseWith(name: string, settings: Record<string, string> = {}): Promise<TestDatabase> {
    const database = await newDatabase(name, server.url);
    const { pathname } = new URL(database.url);
    for (const [setting, value] of Object.entries(settings))
      await database.query(`alter database ${pathname.slice(1)} set ${setting} = '${value}'`);
    return database;
  }

  /** Returns whether the server has a JIT compiler. */
  async function hasJit(): Promise<boolean> {
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    const { rows } = await client.query<{ has: boolean }>("select pg_jit_available() as has");
    await client.end();
    return rows[0]?.has === true;
  }

  it("works over a Unix socket, where TCP settings have no effect", async () => {
    const database = await databaseWith("socket");
    const { pathname } = new URL(database.url);
    const { password, port, socketFolder } = server;
    const url = `postgresql://postgres:${password}@${pathname}?host=${socketFolder}&port=${port}`;
    const { queue, close } = openQueue(url);
    const worker = await WorkerProcess.start({ url, runsUrl: database.url });
    const job = await queue.enqueue("noop");
    await eventually("it is complete", async () => (await job.refresh()).status === "complete");
    const overSocket = await database.query(
      "select pid from pg_stat_activity where application_name = 'saq' and client_port = -1",
    );
    expect(overSocket.length).toBeGreaterThan(1);
    expect(worker.lines.filter(({ level }) => level === "warn" || level === "error")).toEqual([]);
    await worker.stop();
    await close();
    await database.drop();
  });

  describe.each(modes)("%s", (_, options) => {
    it("uses no JIT compilation for its statements, however large the tables are", async () => {
      if (!(await hasJit())) {
        process.stderr.write("This PostgreSQL has no JIT compiler: what it compiles is not tested.\n");
        return;
      }
      // With this setting the server compiles, as it does with statistics of more than 21,000 queued jobs.
      const database = await databaseWith("jit", { jit_above_cost: "0" });
      const own = server.log().length;
      const client = new pg.Client({ connectionString: database.url });
      await client.connect();
      await client.query("select count(*) from pg_class where relname <> ''");
      await client.end();
      // A session with the server's own settings does compile, and the log shows it.
      expect(server.log().slice(own)).toMatch(/\bJIT:/);
      const before = server.log().length;
      const { queue, close } = openQueue(database.url, options);
      const worker = await WorkerProcess.start({ ...options, url: database.url, quiet: true });
      await queue.enqueueMany(
        Array.from({ length: 300 }, (_, index) => ({
          task: "noop" as const,
          payload: undefined,
          ...(index % 10 === 0 && { groupKey: "group", key: `key ${index}` }),
        })),
      );
      await eventually("all are complete", async () => (await queue.counts()).complete === 300);
      await worker.stop();
      await close();
      const compiled = server
        .log()
        .slice(before)
        .split(" LOG:  duration: ")
        .filter((plan) => /\bJIT:/.test(plan));
      // Other plans may be compiled: the test's observer has the server's own settings, and a start behind a pooler
      // only reads catalogs.
      expect(compiled.filter((plan) => /(from|into|update) "public"\."saq_(jobs|stats)"/.test(plan))).toEqual(
        [],
      );
      expect(server.log().slice(before)).toContain("with recursive step(priority)");
      await database.drop();
    });

    it.each(["repeatable read", "serializable"])(
      "works where the default isolation is %s",
      async (isolation) => {
        const database = await databaseWith("isolation", { default_transaction_isolation: isolation });
        // Several queues that start at the same time make the tables.
        const queues = Array.from({ length: 3 }, () => openQueue(database.url, options));
        await Promise.all(queues.map(({ queue }) => queue.connect()));
        const worker = await WorkerProcess.start({ ...options, url: database.url, quiet: true });
        const enqueued = await Promise.all(
          Array.from({ length: 600 }, async (_, index) => {
            const { queue } = queues[index % 3] ?? {};
            const groupKey = index % 10 === 0 ? { groupKey: `g${index % 40}` } : {};
            return queue?.enqueue("noop", undefined, { key: `key ${Math.floor(index / 3)}`, ...groupKey });
          }),
        );
        const stored = enqueued.filter((job) => job !== null && job !== undefined).length;
        expect(stored).toBeGreaterThanOrEqual(200);
        const [first] = queues;
        await eventually(
          "all are complete",
          async () => (await first?.queue.count("incomplete")) === 0,
          60_000,
        );
        expect(await first?.queue.counts()).toMatchObject({ complete: 200, failed: 0, aborted: 0 });
        expect(worker.lines.filter(({ level }) => level === "warn" || level === "error")).toEqual([]);
        await worker.stop();
        await Promise.all(queues.map(({ close }) => close()));
        await database.drop();
      },
    );

    it("works where the database ends idle sessions soon and has short timeouts for locks and statements", async () => {
      const database = await databaseWith("limits", {
        idle_session_timeout: "300ms",
        idle_in_transaction_session_timeout: "300ms",
        statement_timeout: "250ms",
        lock_timeout: "20ms",
      });
      const { queue, close } = openQueue(database.url, options);
      const worker = await WorkerProcess.start({ ...options, url: database.url, runsUrl: server.url });
      for (let round = 0; round < 4; round++) {
        // In this time the server ends the idle sessions, while no statement is under way that could notice it.
        await new Promise((resolve) => setTimeout(resolve, 500));
        const job = await queue.enqueue("noop");
        expect(await queue.counts()).toMatchObject({ failed: 0 });
        await eventually("it is complete", async () => (await job.refresh()).status === "complete");
      }
      expect(worker.lines.filter(({ level }) => level === "warn" || level === "error")).toEqual([]);
      await worker.stop();
      await close();
      await database.drop();
    });

    it("sets its own timeouts and turns JIT off for each claim", async () => {
      const names = ["statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout", "jit"];
      const database = await databaseWith("timeout", { statement_timeout: "0" });
      const { queue, close } = openQueue(database.url, options);
      await queue.connect();
      await database.query(`
        create table seen (name text, setting text);
        create function note_settings() returns trigger language plpgsql as $$ begin
          insert into seen select name, setting from pg_settings where name in ('${names.join("','")}');
          return new; end $$;
        create trigger note_settings before update on saq_jobs for each row execute function note_settings();`);
      await queue.enqueue("noop");
      await queue.broker.claim({ workerId: "late", limit: 10, priorities: [0, 10], grouped: false });
      const seen = await database.query<{ name: string; setting: string }>("select name, setting from seen");
      expect(Object.fromEntries(seen.map(({ name, setting }) => [name, setting]))).toEqual({
        statement_timeout: "25000",
        idle_in_transaction_session_timeout: "15000",
        lock_timeout: "0",
        jit: "off",
      });
      await close();
      await database.drop();
    });
  });
});
