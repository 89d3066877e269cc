/** How other workers see on Redis that a worker is dead, and when a worker ends its jobs itself. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from "@jest/globals";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { RedisConnection } from "../../../templates/backend/saq/redis/connection.js";
import { QueueKeys } from "../../../templates/backend/saq/redis/keys.js";
import { Workers } from "../../../templates/backend/saq/redis/workers.js";
import { emptyFolder } from "../../support/folders.js";
import { openRedisDatabase, type RedisDatabase, redisMissing } from "../../support/redis.js";
import { OwnRedis } from "../support/processes/redis-server.js";
import { claim, closeAfterTest, closeAll, openQueue, startWorker, until } from "../support/scenario.js";
import { stepClock } from "../support/stepped-clock.js";

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const stats = { complete: 0, failed: 0, retried: 0, aborted: 0, uptime: 0 };
const limits = { graceSeconds: 7, lostLimit: 3, checkInterval: 2, failedTtl: 600 };

(redisMissing ? describe.skip : describe)("the lease of a worker on Redis", () => {
  const server = new OwnRedis(emptyFolder(), ["--appendonly", "yes", "--appendfsync", "always"]);
  let redis: RedisDatabase;
  let name: string;
  let queues = 0;
  const tasks = {
    ok: () => "ok",
    nap: async (ctx: { signal: AbortSignal }, { ms }: { ms: number }) => {
      await pause(ms);
      ctx.signal.throwIfAborted();
      return "slept";
    },
  };

  beforeAll(async () => {
    redis = await openRedisDatabase(await server.start());
  });
  afterAll(async () => {
    await redis?.release();
    server.destroy();
  });
  beforeEach(() => {
    name = `lease${++queues}`;
  });
  afterEach(async () => {
    jest.restoreAllMocks();
    await closeAll();
  });

  const leases = () => `saq:${name}:ts:leases`;
  /** Lets the lease end in `seconds`; negative: it has ended. */
  const endLease = (workerId: string, seconds: number) =>
    redis.client.zAdd(leases(), { value: workerId, score: Date.now() + seconds * 1_000 });

  /** A worker that has claimed one job, and another process that sweeps. */
  async function stage(hardDeadlineSeconds = 5) {
    const queue = openQueue(redis, tasks, { name });
    const sweeper = openQueue(redis, tasks, { name });
    await sweeper.connect();
    const workerId = queue.broker.newWorkerId();
    const graceSeconds = hardDeadlineSeconds + queue.broker.recordSeconds;
    const beat = () =>
      queue.broker.saveWorker({ workerId, stats, metadata: null, queueKey: name, graceSeconds }, 9);
    await beat();
    const disconnect = await queue.broker.holdLiveness(workerId);
    const job = await queue.enqueue("ok");
    await claim(queue, { workerId });
    /** Lets the sweeper watch the leases for ten seconds. Returns the keys of the jobs that it has taken over. */
    const watch = async () => {
      const clock = stepClock();
      await sweeper.broker.sweepLost(limits);
      clock.pass(10);
      // The measured clock of the server has moved too. It is measured again when the wall clock disagrees.
      await until(async () => Math.abs(sweeper.broker.now() - Date.now()) < 1_000);
      const taken = await sweeper.broker.sweepLost(limits);
      jest.restoreAllMocks();
      return taken;
    };
    return { queue, workerId, beat, disconnect, key: job.key, watch };
  }

  it("a dead worker's jobs are left alone while the Sentinels cannot reach the master: its side goes on", async () => {
    const { disconnect, workerId, watch, key } = await stage();
    await disconnect();
    await endLease(workerId, -1);
    const isCutOff = jest.spyOn(RedisConnection.prototype, "isCutOff").mockResolvedValue(true);
    expect(await watch()).toEqual([]);
    isCutOff.mockRestore();
    expect(await watch()).toEqual([key]);
  });

  it("a worker keeps its jobs until its lease has ended, also without a connection", async () => {
    const { workerId, disconnect, watch } = await stage();
    await disconnect();
    await endLease(workerId, 5);
    expect(await watch()).toEqual([]);
  });

  it("a worker without a connection loses its jobs when its lease has ended", async () => {
    const { workerId, disconnect, watch, key } = await stage();
    await disconnect();
    await endLease(workerId, -1);
    expect(await watch()).toEqual([key]);
  });

  it("a worker with a connection keeps its jobs for 8 s longer, because it may be blocked", async () => {
    const { workerId, watch, key } = await stage();
    await endLease(workerId, -6);
    expect(await watch()).toEqual([]);
    await endLease(workerId, -9);
    expect(await watch()).toEqual([key]);
  });

  it("a sweeper that may not ask for connections waits as long for every worker", async () => {
    await redis.client.aclSetUser("noPubsub", ["on", ">secret", "+@all", "-pubsub", "~*", "&*"]);
    const { workerId, disconnect } = await stage();
    await disconnect();
    const url = new URL(redis.url);
    const connection = new RedisConnection(
      Object.assign(url, { username: "noPubsub", password: "secret" }).href,
      silentLogger,
      name,
    ).retain();
    closeAfterTest({ close: () => connection.release() });
    const workers = new Workers(connection, new QueueKeys(name, { isCluster: false }));
    await connection.connect();
    await endLease(workerId, -6);
    expect(await workers.dead(await workers.ending(0))).toEqual([]);
    await endLease(workerId, -9);
    expect(await workers.dead(await workers.ending(0))).toMatchObject([{ workerId }]);
  });

  it.each([
    [5, 13.75],
    [20, 28.75],
  ])(
    "with a hard deadline of %d s, others wait %d s after the last heartbeat",
    async (hardDeadline, seconds) => {
      const { queue, workerId } = await stage(hardDeadline);
      const score = Number(await redis.client.zScore(leases(), workerId));
      expect(Math.abs(score - queue.broker.now() - seconds * 1_000)).toBeLessThan(5_000);
      // The worker itself ends its jobs early enough, whatever the deadline is.
      expect(queue.broker.maxHeartbeatAge({ ttlSeconds: 9, marginSeconds: hardDeadline + 5 })).toBe(12.75);
    },
  );

  describe("a job that has exceeded its timeout", () => {
    /** Sweeps stuck jobs, with a job that started a minute ago. Returns the keys of the jobs that were ended. */
    async function sweepStuck({ key }: { key: string }) {
      const id = `saq:job:${name}:${key}`;
      const document = JSON.parse((await redis.client.get(id)) ?? "");
      document.started -= 60_000;
      document.touched = document.started;
      await redis.client.set(id, JSON.stringify(document));
      const sweeper = openQueue(redis, tasks, { name });
      await sweeper.connect();
      return sweeper.broker.sweepStuck(limits);
    }

    it("is ended if its worker is connected, although the worker may be paused", async () => {
      const { key, workerId } = await stage();
      await endLease(workerId, -1);
      expect(await sweepStuck({ key })).toEqual([key]);
    });

    it("is left for those who take over the jobs of dead workers if its worker has no connection", async () => {
      const { disconnect, workerId, key, watch, queue } = await stage();
      await disconnect();
      expect(await sweepStuck({ key })).toEqual([]);
      await endLease(workerId, -1);
      expect(await sweepStuck({ key })).toEqual([]);
      expect(await watch()).toEqual([key]);
      expect(await queue.job(key)).toMatchObject({ status: "queued", attempts: 0 });
    });
  });

  it("a lease that was renewed meanwhile is not removed with those of dead workers", async () => {
    const { workerId, beat } = await stage();
    const connection = new RedisConnection(redis.url, silentLogger, name).retain();
    closeAfterTest({ close: () => connection.release() });
    await connection.connect();
    const workers = new Workers(connection, new QueueKeys(name, { isCluster: false }));
    await endLease(workerId, -20);
    const read = await workers.ending(0);
    expect(read).toMatchObject([{ workerId }]);
    await beat();
    await workers.forget(read);
    expect((await workers.all()).known).toEqual(new Set([workerId]));
    await endLease(workerId, -20);
    await workers.forget(await workers.ending(0));
    expect((await workers.all()).known).toEqual(new Set());
  });

  it("a worker takes over jobs although the server has no room for its connection that waits for jobs", async () => {
    const { disconnect, workerId, key } = await stage();
    const queue = openQueue(redis, tasks, { name });
    const { ended } = await startWorker(queue);
    await until(async () => queue.broker.isListening);
    const clients = await redis.client.clientList();
    await redis.client.configSet("maxclients", "1");
    try {
      for (const { id, flags } of clients)
        if (flags.includes("b")) await redis.client.sendCommand(["CLIENT", "KILL", "ID", String(id)]);
      await until(async () => !queue.broker.isListening);
      await disconnect();
      await endLease(workerId, -1);
      expect(await ended(key)).toBe("Finished ok");
      expect(queue.broker.isListening).toBe(false);
    } finally {
      await redis.client.configSet("maxclients", "1000");
    }
  });

  it("a worker with a long hard deadline runs its jobs to the end", async () => {
    const queue = openQueue(redis, tasks, { name, cancellationHardDeadline: 20 });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("nap", { ms: 3_500 });
    expect(await ended(job.key)).toBe("Finished nap");
  });

  it("a worker keeps its running jobs while the server is down", async () => {
    // With these timers, a worker that is cut off from a server that works ends its jobs after 4 s.
    const timers = { workerInfo: 0.2, abort: 0.2 };
    const queue = openQueue(redis, tasks, { name, timers, cancellationHardDeadline: 0.5 });
    const { worker, log, ended } = await startWorker(queue);
    const job = await queue.enqueue("nap", { ms: 7_000 }, { timeout: 60 });
    await until(async () => worker.runningKeys.length === 1);
    server.kill();
    await pause(6_000);
    await server.start();
    expect(await ended(job.key)).toBe("Finished nap");
    expect(await job.refresh()).toMatchObject({ status: "complete", attempts: 1, meta: {} });
    expect(log.lines.filter(({ message }) => message.startsWith("Processing"))).toHaveLength(1);
  });
});
