/** What a sweep deletes and what it leaves, and that one process sweeps a queue at a time. */
import { beforeAll, describe, expect, it } from "@jest/globals";
import { claim, insertRow, openQueue, useDatabase } from "./support.js";

const database = useDatabase();
const open = (options: object = {}) =>
  openQueue(database, { hello: (_ctx: unknown, _payload?: object) => "hi" }, options);
type Hello = ReturnType<typeof open>;
const limits = { graceSeconds: 5, lostLimit: 3, lookEvery: 2, failedTtl: 600 };

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

const now = async () =>
  Number((await database.query<{ s: number }>("select floor(extract(epoch from now())) as s"))[0]?.s);
const keys = async ({ name }: Hello) =>
  (
    await database.query<{ key: string }>("select key from saq_jobs where queue = $1 order by key", [name])
  ).map(({ key }) => key);

async function finished(queue: Hello, key: string, status: string, expire_at: number | null) {
  const document = JSON.stringify({ function: "hello", queue: queue.name, key, status });
  await insertRow(database, { key, queue: queue.name, document, status, expire_at });
}

describe("rows past their time", () => {
  it("T-32, V-5.15: jobs that have ended are deleted when their time is over, others are kept", async () => {
    const queue = open();
    await queue.connect();
    const past = (await now()) - 1;
    for (const status of ["complete", "failed", "aborted"])
      await finished(queue, `over ${status}`, status, past);
    await finished(queue, "kept for a minute", "complete", past + 60);
    await finished(queue, "kept for ever", "failed", null);
    // No program writes these; whoever did has no job deleted that still runs.
    await finished(queue, "running", "active", past);
    await finished(queue, "waiting", "queued", past);
    await queue.broker.sweepStuck(limits);
    expect(await keys(queue)).toEqual(["kept for a minute", "kept for ever", "running", "waiting"]);
  });

  it("T-33: rows of workers that are long gone are deleted, of all queues, and live ones kept", async () => {
    const queue = open();
    await queue.connect();
    await database.query(
      `insert into saq_stats (worker_id, expire_at, queue_key) select id, extract(epoch from now())::bigint + due, 'other'
       from (values ('gone', -90), ('just missed', -5), ('live', 9)) as w(id, due)`,
    );
    await queue.broker.sweepStuck(limits);
    const left = await database.query("select worker_id from saq_stats order by worker_id");
    expect(left.map((row) => row.worker_id)).toEqual(["just missed", "live"]);
  });
});

describe("who sweeps", () => {
  const holders = () =>
    database.query("select pid from pg_locks where locktype = 'advisory' and classid = 21313 and granted");

  it("T-44, D-15: one process at a time, and none holds the lock for longer than a pass", async () => {
    const name = "one for both";
    const queue = open({ name });
    await queue.connect();
    await finished(queue, "over", "complete", (await now()) - 1);
    const other = await database.connect();
    await other.query(`select pg_advisory_lock(21313, hashtext('"public"."saq_jobs" ' || $1))`, [name]);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    expect(await keys(queue)).toEqual(["over"]);
    await other.query("select pg_advisory_unlock_all()");
    await queue.broker.sweepStuck(limits);
    expect(await keys(queue)).toEqual([]);
    expect(await holders()).toEqual([]);
  });

  it("D-15: a Python worker that holds SAQ's sweep lock for its life keeps nobody from sweeping", async () => {
    const queue = open();
    await queue.connect();
    const python = await database.connect();
    await python.query("select pg_advisory_lock(0, hashtext($1))", [queue.name]);
    await finished(queue, "over", "complete", (await now()) - 1);
    await queue.broker.sweepStuck(limits);
    expect(await keys(queue)).toEqual([]);
  });

  it("T-43: what was claimed just now is left alone", async () => {
    const queue = open();
    await queue.enqueue("hello", {}, { timeout: 1 });
    const [claimed] = await claim(queue);
    expect(await queue.broker.sweepStuck(limits)).toEqual([]);
    expect(await queue.broker.interrupted(claimed ? [claimed] : [])).toEqual([]);
  });
});
