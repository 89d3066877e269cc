/**
 * D-17: a queue with `pollInterval` behind a real PgBouncer in transaction mode, with two server connections for all
 * clients. The tests run if PgBouncer is installed or PGBOUNCER_PATH names it.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import pg from "pg";
import { freePort } from "../../support/free-port.js";
import { closeAfterTest, openQueue, startWorker, until, useDatabase } from "../support/scenario.js";

const program = [process.env.PGBOUNCER_PATH ?? "", "/usr/sbin/pgbouncer", "/usr/local/bin/pgbouncer"].find(
  (candidate) => candidate !== "" && existsSync(candidate),
);
if (!program)
  process.stderr.write("PgBouncer is not installed and PGBOUNCER_PATH not set: its tests are skipped.\n");

const database = useDatabase();
const tasks = {
  double: async (_ctx: unknown, { n }: { n: number }) => n * 2,
  flaky: async (ctx: { job: { attempts: number } }) => {
    if (ctx.job.attempts < 2) throw new Error("not yet");
    return "at last";
  },
  wait: (ctx: { signal: AbortSignal }) =>
    new Promise((_, reject) => ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason))),
};
const poolers: ChildProcess[] = [];
let url = "";

/** Starts a PgBouncer with these additional settings. Returns its address. */
async function startPooler(settings: readonly string[] = []): Promise<string> {
  const folder = mkdtempSync(path.join(process.env.TEST_RUN_FOLDER ?? "", "pgbouncer-"));
  const [port, server] = [await freePort(), new URL(database.url)];
  const name = server.pathname.slice(1);
  writeFileSync(
    path.join(folder, "pgbouncer.ini"),
    `[databases]
${name} = host=${server.hostname} port=${server.port} dbname=${name} user=${server.username} password='${server.password}'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
auth_type = any
pool_mode = transaction
default_pool_size = 2
max_client_conn = 100
unix_socket_dir =
${settings.join("\n")}
`,
  );
  const isRoot = process.getuid?.() === 0;
  if (isRoot) chmodSync(folder, 0o755);
  const user = isRoot ? ["-u", execFileSync("id", ["-un", "65534"], { encoding: "utf8" }).trim()] : [];
  poolers.push(spawn(program ?? "", [...user, path.join(folder, "pgbouncer.ini")], { stdio: "ignore" }));
  // The pooler's own connections to the server outlive a test. With this name they do not count as its leftovers.
  const search = "application_name=pooled";
  const pooled = Object.assign(new URL(database.url), { host: `127.0.0.1:${port}`, search }).href;
  await until(async () => {
    const client = new pg.Client({ connectionString: pooled });
    return client.connect().then(
      () => client.end().then(() => true),
      () => false,
    );
  });
  return pooled;
}

(program ? describe : describe.skip)("a queue behind PgBouncer in transaction mode", () => {
  beforeAll(async () => {
    url = await startPooler();
  });
  afterAll(async () => {
    for (const pooler of poolers) {
      const ended = new Promise((resolve) => pooler.once("exit", resolve));
      if (pooler.kill("SIGKILL")) await ended;
    }
  });

  it("fails with an error that recommends pollInterval if the pooler refuses start-up options", async () => {
    const queue = openQueue({ url }, tasks, { name: "direct" });
    await expect(queue.connect()).rejects.toMatchObject({
      code: "config",
      message: expect.stringMatching(
        /^A connection pooler in transaction mode .*startup parameter.* Set pollInterval/,
      ),
    });
  });

  it("fails with an error that recommends pollInterval if a session does not know a prepared statement", async () => {
    const lax = await startPooler(["ignore_startup_parameters = options"]);
    const queue = openQueue({ url: lax }, tasks, { name: "direct" });
    // The pooler has two sessions. While another client holds one of them, the queue prepares its statements on the
    // other. Then a second client takes that one, and the queue gets the session that does not know its statements.
    const [one, two] = [1, 2].map(() => new pg.Client({ connectionString: lax }));
    if (!one || !two) throw new Error("no clients");
    for (const client of [one, two]) {
      await client.connect();
      closeAfterTest({ close: () => client.end() });
    }
    const failure = async () => {
      await one.query("begin");
      await queue.enqueue("double", { n: 1 });
      await two.query("begin");
      await one.query("commit");
      await queue.enqueue("double", { n: 2 });
    };
    await expect(failure()).rejects.toMatchObject({
      code: "config",
      message: expect.stringContaining("Set pollInterval"),
    });
  });

  it("D-17: runs, retries and aborts jobs, grouped and ungrouped, over two sessions that clients share", async () => {
    const [one, two] = [1, 2].map(() => openQueue({ url }, tasks, { name: "pooled", pollInterval: 0.05 }));
    if (!one || !two) throw new Error("no queues");
    await startWorker(one);
    await startWorker(two);
    const plain = await Promise.all(Array.from({ length: 40 }, (_, n) => one.enqueue("double", { n })));
    const grouped = await Promise.all(
      Array.from({ length: 10 }, (_, n) =>
        two.enqueue("double", { n }, { groupKey: `g${n % 3}`, key: `own ${n}` }),
      ),
    );
    const retried = await one.enqueue("flaky", undefined, { retries: 3 });
    const aborted = await two.enqueue("wait", undefined, { timeout: 0 });
    await until(async () => (await one.job(aborted.key))?.status === "active");
    expect(await one.abort(aborted.key)).toBe("aborting");
    await until(async () => {
      const counts = await one.counts();
      return counts.complete === 51 && counts.aborted === 1;
    });
    for (const [n, job] of plain.entries()) expect((await one.job(job.key))?.result).toBe(n * 2);
    expect(grouped.every((job) => job !== null)).toBe(true);
    expect(await one.job(retried.key)).toMatchObject({ status: "complete", result: "at last", attempts: 2 });
    // No session lock is left on the connections that all clients share.
    expect(
      await database.query(
        `select locktype from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
      ),
    ).toEqual([]);
    expect(await one.workers()).toHaveLength(2);
  });

  it("D-17: two concurrent sweepers without a lock delete the expired rows and keep all others", async () => {
    const queues = [1, 2].map(() => openQueue({ url }, tasks, { name: "swept", pollInterval: 0.05 }));
    const limits = { graceSeconds: 5, lostLimit: 3, checkInterval: 2, failedTtl: 600 };
    await Promise.all(queues.map((queue) => queue.connect()));
    await database.query(
      `insert into saq_jobs (key, job, queue, status, expire_at)
       select state || n, '{}', 'swept', 'complete', case state when 'over' then 5 else 4000000000 end
       from generate_series(1, 200) n, unnest(array['over', 'kept']) state`,
    );
    await queues[0]?.enqueue("double", { n: 1 });
    // A sweeper skips a row that the other one has locked. At the next pass no sweeper holds the row any more.
    for (let n = 0; n < 2; n++) await Promise.all(queues.map((queue) => queue.broker.sweepStuck(limits)));
    expect(await queues[1]?.counts()).toMatchObject({ queued: 1, complete: 200 });
    expect(await database.query("select key from saq_jobs where key like 'over%'")).toEqual([]);
  });
});
