/** Sweeps beside Python workers, and of jobs that have just begun. */
import { afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { stepClock } from "./stepped-clock.js";
import { claim, insertRow, openQueue, useDatabase } from "./support.js";

const database = useDatabase();
const open = () => openQueue(database, { hello: (_ctx: unknown, _payload?: object) => "hi" });
const limits = { graceSeconds: 5, lostLimit: 3, lookEvery: 2, failedTtl: 600 };

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

afterEach(() => {
  jest.restoreAllMocks();
});

describe("a sweep", () => {
  it("D-15: a Python worker that holds SAQ's sweep lock for its life does not keep ours from sweeping", async () => {
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

  it("T-43: a job that was claimed just now is left alone where a stuck one is swept", async () => {
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
