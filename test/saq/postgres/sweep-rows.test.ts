/** Which rows a sweep deletes and which it keeps, also beside Python workers. */
import { afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { claim, insertRow, openQueue, useDatabase } from "../support/scenario.js";
import { stepClock } from "../support/stepped-clock.js";

const database = useDatabase();
const open = () => openQueue(database, { hello: (_ctx: unknown, _payload?: object) => "hi" });
type Hello = ReturnType<typeof open>;
const limits = { graceSeconds: 5, lostLimit: 3, checkInterval: 2, failedTtl: 600 };

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

afterEach(() => {
  jest.restoreAllMocks();
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

describe("expired rows", () => {
  it("T-32, V-5.15: jobs that have ended are deleted when their ttl is over, and other jobs are kept", async () => {
    const queue = open();
    await queue.connect();
    const past = (await now()) - 1;
    for (const status of ["complete", "failed", "aborted"])
      await finished(queue, `over ${status}`, status, past);
    await finished(queue, "kept for a minute", "complete", past + 60);
    await finished(queue, "kept for ever", "failed", null);
    // No program writes such rows. If one does, the sweep still deletes no job that runs or waits.
    await finished(queue, "running", "active", past);
    await finished(queue, "waiting", "queued", past);
    await queue.broker.sweepStuck(limits);
    expect(await keys(queue)).toEqual(["kept for a minute", "kept for ever", "running", "waiting"]);
  });

  it("T-33, P-30: worker rows that expired long ago are deleted in all queues, and others are kept", async () => {
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

describe("a sweep", () => {
  it("D-15: runs although a Python worker holds SAQ's sweep lock permanently", async () => {
    const queue = open();
    await queue.connect();
    const python = await database.connect();
    await python.query("select pg_advisory_lock(0, hashtext($1))", [queue.name]);
    const document = JSON.stringify({
      function: "hello",
      queue: queue.name,
      key: "over",
      status: "complete",
    });
    await insertRow(database, { key: "over", queue: queue.name, document, status: "complete", expire_at: 5 });
    await queue.broker.sweepStuck(limits);
    expect(await queue.job("over")).toBeNull();
  });

  it("T-43: ends a stuck job, and does not change a job that was claimed just now", async () => {
    const clock = stepClock();
    const queue = open();
    const began = async (key: string, secondsAgo: number) => {
      await queue.enqueue("hello", {}, { key, timeout: 10 });
      await claim(queue);
      await database.query(
        `update saq_jobs set job = convert_to(jsonb_set(convert_from(job, 'UTF8')::jsonb, '{started}',
           to_jsonb(floor((extract(epoch from clock_timestamp()) - $2) * 1000)))::text, 'UTF8') where key = $1`,
        [key, secondsAgo],
      );
    };
    await began("stuck", 100);
    await began("young", 0);
    for (let seen = 0; seen <= 12; seen += 2) {
      clock.pass(2);
      await queue.broker.sweepLost(limits);
    }
    expect(await queue.broker.sweepStuck(limits)).toEqual(["stuck"]);
    expect((await queue.job("young"))?.status).toBe("active");
  });
});
