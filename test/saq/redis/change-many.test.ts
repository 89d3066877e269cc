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
    expect(await list()).toEqual(rest.map(id));
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

  it.each([
    ["the list of due jobs", 0],
    ["the jobs that wait for their time", 600],
  ])("misses no job of %s after the jobs before it have left", async (_name, delay) => {
    const scheduled = delay === 0 ? 0 : inSeconds(delay);
    const enqueue = (task: "hello" | "other", count: number) =>
      queue.enqueueMany(Array.from({ length: count }, () => ({ task, scheduled })));
    // Ids with the same score are sorted by their text; those of the other task come first in the pages.
    await enqueue("hello", 600);
    await queue.enqueueMany(
      Array.from({ length: 300 }, () => ({ task: "other" as const, scheduled: delay === 0 ? 0 : inSeconds(9_000) })),
    );
    const first = await queue.changeMany({ task: "hello" }, "abort", { limit: 100 });
    expect(first).toMatchObject({ matched: 100, changed: 100 });
    expect(await queue.changeMany({ task: "other" }, "abort")).toMatchObject({ changed: 300 });
    const rest = await queue.changeMany({ task: "hello" }, "abort", { cursor: first.cursor ?? "" });
    expect(rest).toMatchObject({ matched: 500, changed: 500, cursor: null });
  });

  it("goes on after an id that is in the list of due jobs twice", async () => {
    const keys = await store(1_200, "other");
    // The last one of the second page.
    const twice = keys[251] ?? "";
    await redis.client.rPush(key("queued"), id(twice));
    await store(50);
    const pages: number[] = [];
    const result = await queue.changeMany({ task: "hello" }, "abort", {
      onProgress: ({ changed }) => pages.push(changed),
    });
    expect(result).toMatchObject({ matched: 50, changed: 50, cursor: null });
    expect(pages.length).toBeLessThanOrEqual(6);
  });

  it("lists jobs whose documents are read in several parts, because they have many bytes", async () => {
    const small = openQueue({ url: redis.url }, tasks, { name: queue.name, maxBytes: 1_024 });
    await store(5, "other");
    const keys = await store(60);
    const listed = await small.list({ task: "hello", statuses: ["queued"], limit: 100 });
    expect(listed.map((job) => job.key).sort()).toEqual([...keys].sort());
    // Payloads that are larger than this process reads. Their keys are known all the same.
    await queue.enqueue("hello", { text: "x".repeat(8_000) }, { key: "large:1" });
    await queue.enqueue("hello", {}, { key: "large:2" });
    const large = await small.list({ keyPrefix: "large:", statuses: ["queued"] });
    expect(large.map((job) => job.key)).toEqual(["large:2", "large:1"]);
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

  it("refuses a cursor of PostgreSQL", async () => {
    await store(2);
    const { cursor: own } = await queue.changeMany({}, "retry", { dryRun: true, signal: AbortSignal.abort() });
    const [start, , change] = JSON.parse(Buffer.from(own ?? "", "base64url").toString()) as unknown[];
    const cursor = Buffer.from(JSON.stringify([start, "some key", change])).toString("base64url");
    await expect(queue.changeMany({}, "retry", { cursor })).rejects.toMatchObject({
      code: "invalid_job",
      message: 'changeMany: the cursor is not one of a queue on Redis, got "some key"',
    });
  });
});
