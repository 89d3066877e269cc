/** Pauses on Redis: how jobs of a paused task are put aside, and how workers read the pauses. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import type { ClaimRequest } from "../../../templates/backend/saq/broker.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import {
  leaseRedisDatabase,
  type RedisClient,
  type RedisDatabase,
  redisMissing,
} from "../../support/redis.js";
import { claim, closeAll, openQueue, settle, settlement, startWorker, until } from "../support/scenario.js";

if (redisMissing) process.stderr.write(`Pauses on Redis are not tested: ${redisMissing}.\n`);

(redisMissing ? describe.skip : describe)("a paused task on Redis", () => {
  let database: RedisDatabase;
  let redis: RedisClient;
  let name: string;
  let queues = 0;
  let started: string[] = [];
  const note = (ctx: Context) => void started.push(ctx.job.key);
  const tasks = { mail: note, note };

  beforeAll(async () => {
    database = await leaseRedisDatabase();
    redis = database.client;
  });
  afterAll(() => database?.release());
  beforeEach(() => {
    name = `pauses${++queues}`;
    started = [];
  });
  afterEach(closeAll);

  const open = (options: object = {}) => openQueue(database, tasks, { name, ...options });
  const key = (what: string) => `saq:${name}:${what}`;
  const idsIn = (keys: readonly string[]) => keys.map((job) => `saq:job:${name}:${job}`);
  const parked = () => redis.zRange(key("ts:parked:mail"), 0, -1);
  const request = (limit: number): ClaimRequest => ({
    workerId: "worker-1",
    limit,
    grouped: false,
    priorities: [0, 0],
    excluded: { tasks: ["mail"], groups: [] },
  });

  it("has its jobs put aside once, by their time, whatever the order of the claims", async () => {
    const queue = open();
    const keys = [];
    for (let n = 0; n < 6; n++) keys.push(`job ${9 - n}`);
    for (const each of keys) {
      await queue.enqueue("mail", undefined, { key: each });
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    // The first jobs come back after the others were put aside.
    const ahead = await claim(queue, { limit: 2 });
    expect((await queue.broker.claim(request(4))).jobs).toEqual([]);
    for (const job of ahead.toReversed())
      expect(await settle(queue, settlement(job, "queued", {}, { charge: -1 }))).toBe("applied");
    expect((await queue.broker.claim(request(4))).jobs).toEqual([]);
    expect(await parked()).toEqual(idsIn(keys));
    expect(await redis.lRange(key("queued"), 0, -1)).toEqual([]);
    expect(await redis.lRange(key("active"), 0, -1)).toEqual([]);
    expect(await redis.hLen(key("ts:claims"))).toBe(0);
    expect(await queue.counts()).toMatchObject({ queued: 6, active: 0 });
    expect((await queue.list({ statuses: ["queued"] })).length).toBe(6);
    expect((await queue.list({ statuses: ["queued"], limit: 4, offset: 2 })).length).toBe(4);
  });

  it("does not delay the jobs behind its own, and a claim returns no more than it is asked for", async () => {
    const queue = open();
    await queue.enqueueMany(Array.from({ length: 500 }, () => ({ task: "mail" as const })));
    const notes = await queue.enqueueMany(Array.from({ length: 50 }, () => ({ task: "note" as const })));
    const claimed: string[] = [];
    let claims = 0;
    for (let more = true; more; claims++) {
      const result = await queue.broker.claim(request(10));
      expect(result.jobs.length).toBeLessThanOrEqual(10);
      claimed.push(...result.jobs.map((job) => job.key));
      more = result.more;
    }
    expect(claimed).toEqual(notes.map((job) => job?.key));
    expect(claims).toBeLessThan(10);
    expect(await queue.counts()).toMatchObject({ queued: 500, active: 50 });
    expect(await redis.lLen(key("active"))).toBe(50);
  });

  it("leaves nothing behind when its jobs have run", async () => {
    const queue = open();
    await queue.pause({ task: "mail" });
    await startWorker(queue);
    for (let n = 0; n < 5; n++) await queue.enqueue("mail");
    await until(async () => (await redis.zCard(key("ts:parked:mail"))) === 5);
    expect(await redis.sMembers(key("ts:parked"))).toEqual(["mail"]);
    await queue.resume({ task: "mail" });
    await until(async () => (await queue.counts()).complete === 5);
    await until(async () => (await redis.exists(key("ts:parked"))) === 0);
    expect(await redis.exists([key("ts:parked:mail"), key("ts:pauses")])).toBe(0);
  });

  it("has its jobs run by any worker after the pause, also if those that put them aside are gone", async () => {
    const first = open();
    await first.pause({ task: "mail" });
    const { worker } = await startWorker(first);
    const job = await first.enqueue("mail");
    await until(async () => (await redis.zCard(key("ts:parked:mail"))) === 1);
    await worker.stop();
    const second = open({ timers: { workerInfo: 0.1 } });
    await startWorker(second);
    // Without a notification: only the heartbeat of the second worker can find it.
    await redis.del(key("ts:pauses"));
    await until(async () => started.includes(job.key));
  });

  it("is noticed by the heartbeat if no notification comes", async () => {
    const queue = open({ timers: { workerInfo: 0.1 } });
    const { log } = await startWorker(queue);
    await redis.hSet(key("ts:pauses"), "task mail", `${Date.now()} - {"by":"cli","reason":null}`);
    const line = await log.saw(({ message }) => message === `Paused: task mail of queue ${name}`);
    expect(line.fields.by).toBe("cli");
    await redis.del(key("ts:pauses"));
    await log.saw(({ message }) => message === `Resumed: task mail of queue ${name}`);
  });

  it("drops the job of an id that was put aside twice or whose job has ended", async () => {
    const queue = open();
    await queue.pause({ task: "mail" });
    await queue.enqueue("mail", undefined, { key: "a" });
    await queue.broker.claim(request(1));
    // An id without a job, and one that is in the queue again.
    await redis.zAdd(key("ts:parked:mail"), { score: 1, value: idsIn(["gone"])[0] as string });
    await redis.rPush(key("queued"), idsIn(["a"]));
    await queue.broker.claim(request(1));
    expect(await redis.zCard(key("ts:parked:mail"))).toBe(2);
    await startWorker(queue);
    await queue.resume({ task: "mail" });
    await until(async () => (await queue.counts()).complete === 1);
    await until(async () => (await redis.exists(key("ts:parked:mail"))) === 0);
    expect(started).toEqual(["a"]);
    expect(await queue.counts()).toMatchObject({ queued: 0, active: 0, complete: 1 });
  });
});
