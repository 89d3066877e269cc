/** Changes by filter on Redis: what stays in the lists and sets, and jobs that move while pages are read. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { leaseRedisDatabase, type RedisDatabase, redisMissing } from "../../support/redis.js";
import { claim, closeAll, openQueue, settle, settlement } from "../support/scenario.js";

if (redisMissing) process.stderr.write(`Changes by filter on Redis are not tested: ${redisMissing}.\n`);

const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi", other: () => "ho" };
type Hello = Queue<typeof tasks>;

(redisMissing ? describe.skip : describe)("a change by filter on Redis", () => {
  let redis: RedisDatabase;
  let queue: Hello;
  const key = (name: string) => `saq:${queue.name}:${name}`;
  const id = (jobKey: string) => `saq:job:${queue.name}:${jobKey}`;
  const list = () => redis.client.lRange(key("queued"), 0, -1);

  beforeAll(async () => {
    redis = await leaseRedisDatabase();
  });
  beforeEach(() => {
    queue = openQueue({ url: redis.url }, tasks);
  });
  afterEach(closeAll);
  afterAll(() => redis?.release());

  const store = async (count: number, task: "hello" | "other" = "hello") =>
    (await queue.enqueueMany(Array.from({ length: count }, () => ({ task })))).map((job) => job?.key ?? "");

  it("leaves no id behind in a list, a set or the hash of claims", async () => {
    const [first = "", ...others] = await store(450);
    await queue.enqueue("hello", {}, { scheduled: inSeconds(600) });
    const [running] = await claim(queue, { limit: 1 });
    expect(running?.key).toBe(first);
    if (running) await settle(queue, settlement(running, "failed", { error: "boom", completed: Date.now() }));
    expect(await queue.changeMany({}, "abort")).toMatchObject({ changed: others.length + 1 });
    expect(await list()).toEqual([]);
    expect(await redis.client.zCard(key("incomplete"))).toBe(0);
    expect(await redis.client.zCard(key("ts:aborted"))).toBe(others.length + 1);
    expect(await queue.changeMany({}, "delete")).toMatchObject({ changed: others.length + 2 });
    const left = await redis.client.keys(`saq:*${queue.name}*`);
    expect(left.filter((name) => !/cron|leases|stats/.test(name))).toEqual([]);
  });

  it("removes ids from the middle and both ends of the list of due jobs, and an id that is in it twice", async () => {
    const keys = await store(900);
    const matching = keys.filter((_, n) => n < 3 || n === 449 || n === 450 || n > 896);
    for (const jobKey of matching) await queue.update(jobKey, { meta: { gone: true } });
    // A program in Python may push an id twice.
    await redis.client.rPush(key("queued"), id(keys[450] ?? ""));
    for (let after: string | null = ""; after !== null; ) {
      const page: { next: string | null } = await queue.broker.changePage(
        { selection: { statuses: ["queued"] }, after, limit: 1_000 },
        (row) =>
          row.document.includes('"gone"')
            ? { change: { status: "aborted", patch: null, removed: [], keep: -1 }, answer: null }
            : null,
      );
      after = page.next;
    }
    const rest = keys.filter((jobKey) => !matching.includes(jobKey));
    expect((await list()).filter((one) => one !== id(keys[450] ?? ""))).toEqual(rest.map(id));
    // What may be left of an id that was there twice is dropped by the claim that takes it.
    expect((await claim(queue, { limit: 2_000 })).map((job) => job.key)).toEqual(rest);
  });

  it("misses no job while workers take jobs and others are enqueued between its pages", async () => {
    await store(1_200);
    const taken: string[] = [];
    let matched = 0;
    let cursor: string | null | undefined;
    do {
      const page: Awaited<ReturnType<typeof queue.changeMany>> = await queue.changeMany(
        { task: "hello", statuses: ["queued"] },
        "abort",
        { limit: 100, ...(cursor ? { cursor } : {}) },
      );
      matched += page.changed;
      cursor = page.cursor;
      taken.push(...(await claim(queue, { limit: 30 })).map((job) => job.key));
      await new Promise((resolve) => setTimeout(resolve, 3));
      await store(20, "other");
    } while (cursor);
    expect(matched + taken.length).toBeGreaterThanOrEqual(1_200);
    const left = await queue.list({ task: "hello", statuses: ["queued"], limit: 2_000 });
    expect(left).toEqual([]);
    expect(await queue.count("queued")).toBeGreaterThan(0);
  });

  it("goes on at the right place after skipped jobs, although jobs are added before it", async () => {
    // Ticks of recurring tasks are skipped and stay where they are.
    for (let n = 0; n < 600; n++)
      await queue.enqueue(
        "hello",
        {},
        { key: `cron:${n}`, scheduled: Math.floor(Date.now() / 1_000) + 1_000 + n },
      );
    const first = await queue.changeMany({}, "runNow", { limit: 550 });
    expect(first).toMatchObject({ matched: 550, skipped: { schedule: 550 } });
    await new Promise((resolve) => setTimeout(resolve, 3));
    for (let n = 0; n < 30; n++) await queue.enqueue("hello", {}, { scheduled: inSeconds(90_000) });
    const second = await queue.changeMany({}, "runNow", { cursor: first.cursor ?? "" });
    expect(second).toMatchObject({ matched: 50, changed: 0, skipped: { schedule: 50 }, cursor: null });
  });

  it("finds due jobs that no claim has moved to the list of due jobs yet", async () => {
    const { key: due } = await queue.enqueue("hello", {}, { scheduled: inSeconds(600) });
    await queue.enqueue("hello", {}, { scheduled: inSeconds(1_200) });
    const second = Math.floor(Date.now() / 1_000) - 5;
    const document = JSON.parse((await redis.client.get(id(due))) ?? "") as object;
    await redis.client.set(id(due), JSON.stringify({ ...document, scheduled: second }));
    await redis.client.zAdd(key("incomplete"), { value: id(due), score: second });
    expect(await queue.changeMany({ statuses: ["queued"], due: true }, "abort")).toMatchObject({
      matched: 1,
      changed: 1,
    });
    expect((await queue.job(due))?.status).toBe("aborted");
  });

  it("finds the jobs that were put aside while their task is paused, and takes their ids out of that set", async () => {
    await store(600, "other");
    const [hello = ""] = await store(1);
    const excluded = { tasks: ["other"], groups: [] };
    await queue.broker.claim({ workerId: "w1", limit: 600, grouped: false, priorities: [0, 0], excluded });
    expect(await redis.client.zCard(key("ts:parked:other"))).toBe(600);
    expect(await list()).toEqual([id(hello)]);
    expect(await queue.counts()).toMatchObject({ queued: 601 });
    expect(await queue.list({ task: "other", statuses: ["queued"], limit: 1_000 })).toHaveLength(600);
    expect(await queue.changeMany({ statuses: ["queued"], due: false }, "abort")).toMatchObject({ matched: 0 });
    const first = await queue.changeMany({ task: "other" }, "abort", { limit: 550 });
    expect(first).toMatchObject({ matched: 550, changed: 550 });
    const rest = await queue.changeMany({ task: "other" }, "abort", { cursor: first.cursor ?? "" });
    expect(rest).toMatchObject({ matched: 50, changed: 50, cursor: null });
    expect(await redis.client.exists(key("ts:parked:other"))).toBe(0);
    expect(await queue.counts()).toMatchObject({ queued: 1, aborted: 600 });
  });

  it("refuses a cursor of PostgreSQL", async () => {
    const cursor = Buffer.from(JSON.stringify([1, "some key"])).toString("base64url");
    await expect(queue.changeMany({}, "retry", { cursor })).rejects.toMatchObject({
      code: "invalid_job",
      message: 'changeMany: the cursor is not one of a queue on Redis, got "some key"',
    });
  });
});
