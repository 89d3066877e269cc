/** Claims whose answer never came: given back, however long that takes, and without storming the database. */
import { afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import type { Queue } from "../../templates/backend/saq/queue/queue.js";
import { openProxy, type TestProxy } from "./cuttable-proxy.js";
import { stepClock } from "./stepped-clock.js";
import { claim, openQueue, rowOf, startWorker, until, useDatabase } from "./support.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (from: { url: string } = database): Hello => openQueue(from, tasks);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});
afterEach(() => {
  jest.restoreAllMocks();
});

const statusOf = async (key: string) => (await rowOf(database, key))?.status;

const activeOf = (queue: Hello) =>
  database.query<{ key: string }>("select key from saq_jobs where queue = $1 and status = 'active'", [
    queue.name,
  ]);

/** Enqueues jobs and claims them, with the answer swallowed. Answers their keys. */
async function cutClaim(queue: Hello, proxy: TestProxy, count = 1): Promise<string[]> {
  const jobs = await queue.enqueueMany(
    Array.from({ length: count }, (_, n) => ({ task: "hello" as const, payload: { n } })),
  );
  const keys = jobs.map((job) => job?.key ?? "");
  const swallowed = proxy.mute();
  const claimed = claim(queue);
  const failed = expect(claimed).rejects.toThrow();
  await swallowed;
  await until(async () => (await statusOf(keys[0] ?? "")) === "active");
  proxy.refuse();
  await failed;
  return keys;
}

describe("a claim that was carried out unseen", () => {
  it("5.2: is given back uncharged after an outage of any length", async () => {
    const clock = stepClock();
    const proxy = await openProxy(database);
    const queue = open(proxy);
    const [key = ""] = await cutClaim(queue, proxy);
    // Eight minutes for whoever counts them.
    for (let second = 0; second < 8; second++) {
      clock.pass(60);
      clock.set(60);
      await pause(1_000);
    }
    expect(await statusOf(key)).toBe("active");
    proxy.admit();
    await until(async () => (await statusOf(key)) === "queued");
    expect(JSON.parse((await rowOf(database, key))?.text ?? "")).not.toHaveProperty("attempts");
  }, 30_000);

  it("5.2: a job that somebody's transaction holds keeps none of the others, and comes after them", async () => {
    const proxy = await openProxy(database);
    const queue = open(proxy);
    const keys = (await cutClaim(queue, proxy, 5)).toSorted();
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [keys[0]]);
    proxy.admit();
    await until(async () => (await activeOf(queue)).length === 1);
    expect(await activeOf(queue)).toEqual([{ key: keys[0] }]);
    await other.query("rollback");
    await until(async () => (await statusOf(keys[0] ?? "")) === "queued");
  }, 30_000);

  it("V-5.11: one that was aborted meanwhile is ended as aborted", async () => {
    const proxy = await openProxy(database);
    const queue = open(proxy);
    const [key = ""] = await cutClaim(queue, proxy);
    await database.query("update saq_jobs set status = 'aborting' where key = $1", [key]);
    proxy.admit();
    await until(async () => (await statusOf(key)) === "aborted");
  }, 30_000);

  it("5.2: one that the server finishes 8 s after the cut is found too", async () => {
    await database.query(`
      create function slow_claim() returns trigger language plpgsql as $$ begin perform pg_sleep(8); return new; end $$;
      create trigger slow_claim before update of status on saq_jobs for each row
        when (old.status = 'queued' and new.status = 'active') execute function slow_claim();`);
    try {
      const proxy = await openProxy(database);
      const queue = open(proxy);
      const { key } = await queue.enqueue("hello");
      const failed = expect(claim(queue)).rejects.toThrow();
      await pause(500);
      proxy.cut();
      await failed;
      await until(async () => (await statusOf(key)) === "active");
      await until(async () => (await statusOf(key)) === "queued");
    } finally {
      await database.query("drop trigger slow_claim on saq_jobs; drop function slow_claim");
    }
  }, 40_000);
});

describe("a claim whose answer is read late", () => {
  it("5.2: is given back unstarted, because others may have taken its jobs over", async () => {
    const clock = stepClock();
    let runs = 0;
    const count = () => {
      runs++;
    };
    const queue = openQueue(database, { count });
    const [taken, left] = [await queue.enqueue("count"), await queue.enqueue("count")];
    const claims = jest.spyOn(queue.broker, "claim");
    claims.mockImplementationOnce(async (request) => {
      const jobs = await queue.broker.claim(request);
      // While this process stood still, another one has taken over the first of them, and finished it.
      clock.pass(7);
      await database.query(
        "update saq_jobs set status = 'complete', lock_key = lock_key + 1, expire_at = 1e10 where key = $1",
        [taken.key],
      );
      return jobs;
    });
    const { ended } = await startWorker(queue);
    expect(await ended(left.key)).toBe("Finished count");
    expect(runs).toBe(1);
    expect(await queue.job(left.key)).toMatchObject({ attempts: 1, status: "complete" });
  }, 20_000);
});

describe("a database that is away", () => {
  it("5.2: is tried at most 30 times in 5 s by one idle worker", async () => {
    const proxy = await openProxy(database);
    const queue = open(proxy);
    await startWorker(queue);
    // The back-offs have grown by then.
    proxy.refuse();
    await pause(8_000);
    const before = proxy.tries;
    await pause(5_000);
    const tries = proxy.tries - before;
    proxy.admit();
    expect(tries).toBeGreaterThan(0);
    expect(tries).toBeLessThanOrEqual(30);
  }, 30_000);
});
