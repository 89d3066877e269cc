/** Queues on a real Redis Cluster: three masters, and a replica of the first one. */
import { type AddressInfo, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import { createSaq, cronJob, defineQueue, defineSaq } from "../../../templates/backend/saq/index.js";
import { QueueKeys } from "../../../templates/backend/saq/redis/keys.js";
import { redisServerMissing } from "../../support/redis.js";
import { LogBook } from "../support/log-book.js";
import { eventually } from "../support/processes/child.js";
import { Load, report } from "../support/redis-load.js";
import { nodeTimeoutMs, outage, RedisCluster, TestServer, tasks } from "../support/redis-topology.js";
import { closeAfterTest, closeAll, openQueue, startWorker } from "../support/scenario.js";

if (redisServerMissing)
  process.stderr.write(`Queues on a Redis Cluster are not tested: ${redisServerMissing}.\n`);

/** With these timers, a worker that is cut off from a server that works ends its jobs after 4 s. */
const shortLease = { timers: { workerInfo: 0.2, abort: 0.2 }, cancellationHardDeadline: 0.5 };
const nap = async ({ signal }: { signal: AbortSignal }, { ms }: { ms: number }) => {
  await sleep(ms);
  signal.throwIfAborted();
  return "slept";
};

(redisServerMissing ? describe.skip : describe)("a queue on a Redis Cluster", () => {
  let cluster: RedisCluster;

  beforeAll(async () => {
    cluster = await RedisCluster.start({ replicas: 1 });
  });
  afterAll(() => cluster?.stop());
  const replica = () => cluster.replicas[0] as TestServer;
  afterEach(closeAll);

  const open = (options: Parameters<typeof openQueue<typeof tasks>>[2] = {}) =>
    openQueue({ url: cluster.url }, tasks, options);
  const nodes = () => cluster.url.slice("redis+cluster://".length);

  describe("while nothing fails", () => {
    it.each([["plain"], ["with:colons"], ["{open"], ["päper ☂ *[a]"]])(
      "runs the jobs of a queue named %s: results, aborts, lists, workers",
      async (name) => {
        const queue = open({ name });
        const { ended } = await startWorker(queue);
        expect(await queue.apply("double", { n: 21 })).toBe(42);
        const job = await queue.enqueue("slow", undefined, { key: "slow" });
        await eventually("the job runs", async () => (await queue.job("slow"))?.status === "active");
        expect(await job?.abort("enough")).toBe("aborting");
        expect(await ended("slow")).toMatch(/^Aborted/);
        const keys: string[] = [];
        for await (const { key } of queue.iterJobs()) keys.push(key);
        expect(keys).toHaveLength(2);
        expect(keys).toContain("slow");
        expect(await queue.workers()).toHaveLength(1);
        expect(await queue.counts()).toMatchObject({ complete: 1, aborted: 1, queued: 0, active: 0 });
      },
    );

    it("connects each queue of one process to the node of its own keys", async () => {
      const names = await Promise.all(cluster.masters.map((node) => nameOn(node, "spread")));
      const log = new LogBook();
      const queues = names.map((name) => defineQueue({ name, dsn: cluster.url, tasks }));
      const saq = closeAfterTest(createSaq(defineSaq({ queues, logger: log })));
      for (const round of [1, 2]) {
        await Promise.all(names.map((name) => saq.taskQueues.get(name).enqueue("double", { n: round })));
        const stored = cluster.masters.map(({ client }, index) =>
          client.lLen(`saq:{${names[index]}}:queued`),
        );
        expect(await Promise.all(stored)).toEqual([round, round, round]);
      }
      // With one connection for all of them, each command would be redirected.
      expect(log.lines).toEqual([]);
    });

    it("publishes only the ends of jobs that somebody waits for: a message goes to all nodes", async () => {
      const queue = open();
      const { ended } = await startWorker(queue);
      const subscriber = replica().client.duplicate();
      await subscriber.connect();
      closeAfterTest({ close: () => subscriber.close() });
      const channels: string[] = [];
      await subscriber.pSubscribe("*", (_message, channel) => channels.push(channel));
      await queue.enqueue("double", { n: 1 }, { key: "unawaited" });
      expect(await ended("unawaited")).toBe("Finished double");
      expect(await queue.apply("double", { n: 2 })).toBe(4);
      await eventually("the end of the awaited job is published", async () => channels.length > 0);
      expect(channels).toEqual([expect.stringMatching(/^saq:ts:reply:/)]);
    });

    it("runs scheduled tasks", async () => {
      const runs: number[] = [];
      const tick = async () => {
        runs.push(Date.now());
      };
      const queue = openQueue(
        { url: cluster.url },
        { tick },
        { scheduledTasks: [cronJob("tick", { cron: "* * * * * *" })] },
      );
      await startWorker(queue);
      await eventually("it ran twice", async () => runs.length >= 2);
    });
  });

  describe("while the queue's slot moves to another node", () => {
    it("loses and doubles no job, and goes on at the new node", async () => {
      const load = await Load.start(cluster.url);
      const { key, from, to } = await moving(load.queue.name);
      const began = performance.now();
      await cluster.moveSlot({ key, from, to, pauseMs: 1_000 });
      expect(await cluster.ownerOf(key)).toBe(to);
      await load.isGoingOn();
      const recovery = performance.now() - began;
      const result = await load.finish();
      report("Cluster, slot moved to another node", result, recovery);
      expect(result.lost).toEqual([]);
      expect(result.doubled).toEqual([]);
      expect(load.failures).toBe(0);
      const lines = load.log.lines.map(({ message }) => message);
      expect(lines.filter((line) => line === outage).length).toBeLessThanOrEqual(2);
      expect(lines).toContain(`Redis: the queue's keys are on ${to.name} now`);
    });

    it("lets running jobs go on, although the move takes longer than a lease", async () => {
      const queue = openQueue({ url: cluster.url }, { nap }, shortLease);
      const { worker, ended } = await startWorker(queue);
      const job = await queue.enqueue("nap", { ms: 6_000 }, { timeout: 60 });
      await eventually("the job runs", async () => worker.runningKeys.length === 1);
      const { key, from, to } = await moving(queue.name);
      const keys = new QueueKeys(queue.name, { isCluster: true });
      const firstKeys = [keys.workerInfo(worker.workerId), keys.leases];
      await cluster.moveSlot({ key, from, to, pauseMs: 6_500, firstKeys });
      expect(await ended(job?.key ?? "")).toBe("Finished nap");
      await eventually("its end is stored", async () => (await job?.refresh())?.status === "complete");
      expect(job).toMatchObject({ attempts: 1 });
      expect(job?.meta).toEqual({});
    });

    it("lets running jobs go on while the node, which the others name as the owner, accepts no writes", async () => {
      const queue = openQueue({ url: cluster.url }, { nap }, shortLease);
      const { ended } = await startWorker(queue);
      const job = await queue.enqueue("nap", { ms: 7_000 }, { timeout: 60 });
      await eventually("the job runs", async () => (await job?.refresh())?.status === "active");
      const owner = await cluster.ownerOf(`saq:{${queue.name}}:queued`);
      await owner.send("CONFIG", "SET", "min-replicas-to-write", "2");
      try {
        await sleep(6_000);
      } finally {
        await owner.send("CONFIG", "SET", "min-replicas-to-write", "0");
      }
      expect(await ended(job?.key ?? "")).toBe("Finished nap");
      await eventually("its end is stored", async () => (await job?.refresh())?.status === "complete");
      expect(job).toMatchObject({ attempts: 1, meta: {} });
    });

    it("reads and runs what has moved, also in a process that has sent no command meanwhile", async () => {
      const queue = open();
      const jobs = [];
      for (let n = 0; n < 30; n++) jobs.push(await queue.enqueue("double", { n }, { scheduled: 2 ** 31 }));
      const { key, from, to } = await moving(queue.name);
      const log = new LogBook();
      const idle = open({ name: queue.name, logger: log });
      expect(await idle.counts()).toMatchObject({ scheduled: 30 });
      await cluster.moveSlot({ key, from, to, pauseMs: 0 });
      // SCAN names no key, so the old node would return an empty page.
      const keys: string[] = [];
      for await (const { key: found } of idle.iterJobs()) keys.push(found);
      expect(new Set(keys)).toEqual(new Set(jobs.map((job) => job?.key)));
      // A redirect that is followed at once is no outage.
      expect(log.lines.map(({ message }) => message)).toEqual([
        `Redis: the queue's keys are on ${to.name} now`,
      ]);
      await startWorker(queue);
      expect(await idle.apply("double", { n: 4 })).toBe(8);
      await eventually(
        "nobody is connected to it",
        async () => (await from.engineConnections()).length === 0,
      );
    });

    it("follows the node that receives the keys before it is the owner", async () => {
      const queue = open();
      await queue.enqueue("double", { n: 1 }, { key: "k" });
      const { key, from, to } = await moving(queue.name);
      await cluster.moveSlot({
        key,
        from,
        to,
        pauseMs: 0,
        beforeEnd: async () => {
          // Single keys are read from the node that has them. A script waits, because it names keys that do not exist.
          expect(await queue.broker.nextWork([0, 0])).toMatchObject({ due: expect.any(Number) });
          const enqueued = queue.enqueue("double", { n: 2 });
          expect(await Promise.race([enqueued, sleep(500, "waits")])).toBe("waits");
        },
      });
      await eventually("both wait", async () => (await queue.counts()).queued === 2);
    });
  });

  /** Returns the node that owns the first third of the slots, and the one that follows it. */
  async function firstPair(): Promise<{ owner: TestServer; follower: TestServer }> {
    const [first] = cluster.masters as [TestServer];
    const isOwner = (await first.info("role")) === "master";
    return isOwner ? { owner: first, follower: replica() } : { owner: replica(), follower: first };
  }

  it("lets running jobs go on until a replica takes over, although this takes longer than a lease", async () => {
    const { owner } = await firstPair();
    const queue = openQueue({ url: cluster.url }, { nap }, { ...shortLease, name: await nameOn(owner) });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("nap", { ms: 10_000 }, { timeout: 60 });
    await eventually("the job runs", async () => (await job?.refresh())?.status === "active");
    expect(await owner.send("WAIT", "1", "5000")).toBe(1);
    await setNodeTimeout(8_000);
    await owner.kill();
    try {
      expect(await ended(job?.key ?? "")).toBe("Finished nap");
      await eventually("its end is stored", async () => (await job?.refresh())?.status === "complete");
      expect(job).toMatchObject({ attempts: 1 });
      expect(job?.meta).toEqual({});
    } finally {
      await owner.restart();
      await setNodeTimeout(nodeTimeoutMs);
      await eventually(
        "it follows the new owner",
        async () => (await owner.info("master_link_status")) === "up",
      );
    }
  });

  it("goes on after the owner was killed: no job is lost or doubled that a replica had confirmed", async () => {
    const { owner, follower } = await firstPair();
    const name = await nameOn(owner);
    const load = await Load.start(cluster.url, { name });
    // Its address names only the node that dies: this process has learned of the others from it.
    const other = openQueue({ url: `redis+cluster://${owner.name}` }, tasks, {
      name: await nameOn(owner, "other"),
    });
    await other.enqueue("double", { n: 1 });
    const confirmed = await load.confirmed(owner);
    await owner.kill();
    const killed = performance.now();
    await load.isGoingOn();
    const recovery = performance.now() - killed;
    const result = await load.finish();
    report("Cluster, owner killed", result, recovery);
    expect(await cluster.ownerOf(`saq:{${name}}:queued`)).toBe(follower);
    expect(result.lost.filter((key) => confirmed.enqueued.has(key))).toEqual([]);
    expect(result.doubled.filter((key) => confirmed.ended.has(key))).toEqual([]);
    expect(confirmed.enqueued.size).toBeGreaterThan(20);
    await startWorker(other);
    expect(await other.apply("double", { n: 2 })).toBe(4);
  });

  it("asks the next node if one loads its data", async () => {
    // Redis 6.2 refuses CLUSTER SLOTS then; later versions answer it.
    const loading = createServer((socket) => {
      socket.on("error", () => {});
      // One reply to each command.
      socket.on("data", (data) => {
        const commands = data.toString().match(/^\*\d+\r$/gm) ?? [];
        for (const _ of commands) socket.write("-LOADING Redis is loading the dataset in memory\r\n");
      });
    });
    await new Promise<void>((resolve) => loading.listen(0, "127.0.0.1", resolve));
    closeAfterTest({ close: async () => loading.close() });
    const { port } = loading.address() as AddressInfo;
    const queue = openQueue({ url: `redis+cluster://127.0.0.1:${port},${nodes()}` }, tasks);
    // Before a worker starts: it would try again by itself.
    await queue.enqueue("double", { n: 1 });
    await startWorker(queue);
    expect(await queue.apply("double", { n: 2 })).toBe(4);
  });

  it("says that the address is that of a cluster, or of no cluster", async () => {
    const [, node] = cluster.masters as [TestServer, TestServer];
    const queue = openQueue({ url: `redis://${node.name}` }, tasks);
    await expect(queue.enqueue("double", { n: 1 })).rejects.toMatchObject({
      code: "config",
      message:
        `Redis at ${node.name}/0 belongs to a cluster; begin the DSN with redis+cluster:// ` +
        "(with TLS: rediss+cluster://) in place of redis://, and leave the database out",
    });
    const single = await TestServer.start([]);
    closeAfterTest({ close: () => single.kill() });
    const other = openQueue({ url: `redis+cluster://${single.name}` }, tasks);
    await expect(other.enqueue("double", { n: 1 })).rejects.toMatchObject({
      code: "config",
      message:
        `Redis at ${single.name} is no cluster; begin the DSN with redis:// (with TLS: rediss://) and name one ` +
        "server",
    });
  });

  it("says that the cluster is down", async () => {
    const [, second, third] = cluster.masters as [TestServer, TestServer, TestServer];
    const queue = open({ name: await nameOn(second) });
    await queue.enqueue("double", { n: 1 });
    await third.kill();
    await eventually("the cluster is down", async () =>
      String(await second.send("CLUSTER", "INFO")).includes("cluster_state:fail"),
    );
    await expect(queue.enqueue("double", { n: 2 })).rejects.toMatchObject({
      code: "database_unavailable",
      message:
        `The Redis cluster at ${nodes()} is down: a part of its slots has no working master (CLUSTERDOWN The cluster ` +
        'is down). "redis-cli cluster info" and "redis-cli cluster nodes" on a node show which one',
    });
  });

  async function setNodeTimeout(ms: number): Promise<void> {
    for (const node of cluster.nodes) await node.send("CONFIG", "SET", "cluster-node-timeout", String(ms));
  }

  /** Returns a name whose queue has its keys on this node. */
  async function nameOn(node: TestServer, prefix = "placed"): Promise<string> {
    for (let number = 0; number < 100; number++) {
      const name = `${prefix}-${number}`;
      if ((await cluster.ownerOf(`saq:{${name}}:queued`)) === node) return name;
    }
    throw new Error(`No key is on ${node.name}`);
  }

  /** Returns a key of a queue, its owner, and a master to move the slot to. */
  async function moving(name: string): Promise<{ key: string; from: TestServer; to: TestServer }> {
    const key = `saq:{${name}}:queued`;
    const from = await cluster.ownerOf(key);
    const to = cluster.masters.find((node) => node !== from) as TestServer;
    return { key, from, to };
  }
});
