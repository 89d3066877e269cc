/** A worker that stops while Redis is slow or its connections break leaves no job behind as running. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { changeScript } from "../../../templates/backend/saq/redis/lua/change.js";
import { startScript, takeExpectedScript } from "../../../templates/backend/saq/redis/lua/claim.js";
import { completeScript } from "../../../templates/backend/saq/redis/lua/complete.js";
import { emptyFolder } from "../../support/folders.js";
import { openRedisDatabase, type RedisDatabase, redisMissing } from "../../support/redis.js";
import { openProxy } from "../support/cuttable-proxy.js";
import { OwnRedis } from "../support/processes/redis-server.js";
import { claim, closeAll, openQueue, settle, settlement, startWorker, until } from "../support/scenario.js";

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

(redisMissing ? describe.skip : describe)("the stop of a worker on Redis", () => {
  const server = new OwnRedis(emptyFolder());
  let redis: RedisDatabase;
  let name: string;
  let queues = 0;

  beforeAll(async () => {
    redis = await openRedisDatabase(await server.start());
  });
  afterAll(async () => {
    await redis?.release();
    server.destroy();
  });
  beforeEach(() => {
    name = `stop${++queues}`;
  });
  afterEach(async () => {
    server.resume();
    await closeAll();
    // A client that connects again while it is closed must not leave its new connection open.
    const { id } = await redis.client.clientInfo();
    await until(async () => (await redis.client.clientList()).every((client) => client.id === id));
  });

  const leftBehind = async () => ({
    active: await redis.client.lRange(`saq:${name}:active`, 0, -1),
    claims: await redis.client.hGetAll(`saq:${name}:ts:claims`),
    leases: await redis.client.zRange(`saq:${name}:ts:leases`, 0, -1),
  });
  const nothing = { active: [], claims: {}, leases: [] };

  it.each([
    ["takes jobs", takeExpectedScript, 3],
    ["marks them as active", startScript, 3],
    ["takes and marks the job that has woken the worker", takeExpectedScript, 1],
  ])(
    "gives back the jobs of a claim whose response is lost: of the script that %s",
    async (_what, { sha1 }, count) => {
      const proxy = await openProxy(redis);
      const tasks = { ok: () => "ok" };
      const queue = openQueue({ url: proxy.url }, tasks, { name, timers: { schedule: 1_000 } });
      const enqueuer = openQueue(redis, tasks, { name });
      const { worker, ended } = await startWorker(queue);
      const enqueueMany = (size: number) =>
        enqueuer.enqueueMany(
          Array.from({ length: size }, () => ({ task: "ok" as const, payload: undefined })),
        );
      // After both, the server knows the scripts, and the worker sends their hashes.
      for (const size of [2, 1]) for (const job of await enqueueMany(size)) if (job) await ended(job.key);
      const lost = proxy.loseResponse(sha1);
      const jobs = await enqueueMany(count);
      await lost;
      while ((await redis.client.hLen(`saq:${name}:ts:claims`)) === 0) await pause(5);
      proxy.cut();
      await worker.stop();
      expect(await leftBehind()).toEqual(nothing);
      for (const job of jobs)
        expect(await job?.refresh()).toMatchObject({ status: "queued", attempts: 0, meta: {} });
      expect(await queue.count("queued")).toBe(count);
    },
  );

  describe("a change of a single job whose response is lost", () => {
    const tasks = { ok: () => "ok" };
    /** Loses the response to the next change by `act`, then cuts the connections. Returns what `act` returns. */
    async function loseChange<T>(
      act: (queue: Queue<typeof tasks>) => Promise<T>,
      isDone: () => Promise<boolean>,
    ): Promise<T> {
      const proxy = await openProxy(redis);
      const queue = openQueue({ url: proxy.url }, tasks, { name });
      await queue.connect();
      const lost = proxy.loseResponse(changeScript.sha1);
      const answer = act(queue);
      await lost;
      await until(isDone);
      proxy.cut();
      return answer;
    }

    it("claims a job that is tried again", async () => {
      const direct = openQueue(redis, tasks, { name });
      const { key } = await direct.enqueue("ok", undefined, { retries: 3 });
      for (const one of await claim(direct)) await settle(direct, settlement(one, "queued"));
      const isActive = async () => (await direct.job(key))?.status === "active";
      const claimed = await loseChange((queue) => claim(queue), isActive);
      expect(claimed).toMatchObject([{ key }]);
      expect(await direct.count("active")).toBe(1);
      expect(await direct.count("incomplete")).toBe(1);
    });

    it("aborts a job that is deleted at its end, and says so", async () => {
      const direct = openQueue(redis, tasks, { name });
      const { key } = await direct.enqueue("ok", undefined, { ttl: -1 });
      const isGone = async () => (await direct.job(key)) === null;
      expect(await loseChange((queue) => queue.abort(key, "enough"), isGone)).toBe("aborted");
    });

    it("retries and aborts a job, and says so", async () => {
      const direct = openQueue(redis, tasks, { name });
      const { key } = await direct.enqueue("ok");
      const is = (status: string) => async () => (await direct.job(key))?.status === status;
      expect(await loseChange((queue) => queue.abort(key, "enough"), is("aborted"))).toBe("aborted");
      expect(await loseChange((queue) => queue.retry(key), is("queued"))).toBe("queued");
    });
  });

  it("waits for a server that is paused, records the ends of its jobs and gives back the others", async () => {
    let open = () => {};
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const tasks = {
      waits: () => opened,
      hangs: (ctx: { signal: AbortSignal }) =>
        new Promise((_, reject) => {
          ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason));
        }),
    };
    const queue = openQueue(redis, tasks, { name });
    const { worker, log } = await startWorker(queue, { shutdownGracePeriod: 0.5 });
    const [done, cancelled] = [await queue.enqueue("waits"), await queue.enqueue("hangs")];
    while (worker.runningKeys.length < 2) await pause(5);
    server.pause();
    open();
    const stopped = worker.stop();
    await log.saw(({ message }) => message.includes("requesting cancellation"));
    // The settlements and the next heartbeat are sent while the server is paused.
    await pause(3_000);
    server.resume();
    await stopped;
    expect(await leftBehind()).toEqual(nothing);
    expect((await done.refresh()).status).toBe("complete");
    expect(await cancelled.refresh()).toMatchObject({
      status: "queued",
      attempts: 0,
      meta: { cancellations: 1 },
    });
  });

  it("records a completion whose response is lost, once", async () => {
    const proxy = await openProxy(redis);
    let runs = 0;
    const tasks = { count: () => ++runs };
    const queue = openQueue({ url: proxy.url }, tasks, { name });
    const enqueuer = openQueue(redis, tasks, { name });
    const { worker, log, ended } = await startWorker(queue);
    await ended((await enqueuer.enqueue("count")).key);
    const lost = proxy.loseResponse(completeScript.sha1);
    const job = await enqueuer.enqueue("count");
    await lost;
    while ((await job.refresh()).status !== "complete") await pause(5);
    const stopped = worker.stop();
    proxy.cut();
    await stopped;
    expect(await job.refresh()).toMatchObject({ status: "complete", result: 2 });
    expect(await leftBehind()).toEqual(nothing);
    expect(log.lines.filter(({ message }) => message.startsWith("Finished "))).toHaveLength(2);
    expect(log.lines.filter(({ message }) => message.startsWith("lost the job"))).toEqual([]);
  });
});
