/** Queues on a real Redis with Sentinels: a master, a replica, and three Sentinels. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import { cronJob } from "../../../templates/backend/saq/config/index.js";
import { ConfigError } from "../../../templates/backend/saq/errors.js";
import { redisServerMissing } from "../../support/redis.js";
import { LogBook } from "../support/log-book.js";
import { eventually } from "../support/processes/child.js";
import { Load, report } from "../support/redis-load.js";
import { downAfterMs, outage, SentinelSet, TestServer, tasks } from "../support/redis-topology.js";
import { closeAfterTest, closeAll, openQueue, startWorker } from "../support/scenario.js";

if (redisServerMissing)
  process.stderr.write(`Queues behind Sentinels are not tested: ${redisServerMissing}.\n`);

(redisServerMissing ? describe.skip : describe)("a queue behind Redis Sentinels", () => {
  let set: SentinelSet;

  beforeAll(async () => {
    set = await SentinelSet.start();
  });
  afterAll(() => set?.stop());
  afterEach(closeAll);

  const open = (options: Parameters<typeof openQueue<typeof tasks>>[2] = {}) =>
    openQueue({ url: set.url }, tasks, options);

  describe("while nothing fails", () => {
    it("runs jobs, returns results, aborts, and lists jobs and workers", async () => {
      const queue = open();
      const { ended } = await startWorker(queue);
      expect(await queue.apply("double", { n: 21 })).toBe(42);
      const job = await queue.enqueue("slow", undefined, { key: "slow" });
      await eventually("the job runs", async () => (await queue.job("slow"))?.status === "active");
      expect(await job?.abort("enough")).toBe("aborting");
      expect(await ended("slow")).toMatch(/^Aborted/);
      const keys: string[] = [];
      for await (const { key } of queue.iterJobs()) keys.push(key);
      expect(keys).toContain("slow");
      expect(await queue.workers()).toHaveLength(1);
      expect(await queue.counts()).toMatchObject({ complete: 1, aborted: 1, queued: 0, active: 0 });
    });

    it("runs scheduled tasks", async () => {
      const runs: number[] = [];
      const tick = async () => {
        runs.push(Date.now());
      };
      const queue = openQueue(
        { url: set.url },
        { tick },
        { scheduledTasks: [cronJob("tick", { cron: "* * * * * *" })] },
      );
      await startWorker(queue);
      await eventually("it ran twice", async () => runs.length >= 2);
    });

    it("uses the keys of a single server, which Python reads", async () => {
      const queue = open();
      await queue.enqueue("double", { n: 1 }, { key: "k" });
      const { client } = await set.master();
      expect(await client.lRange(`saq:${queue.name}:queued`, 0, -1)).toEqual([`saq:job:${queue.name}:k`]);
    });
  });

  describe("when the master changes", () => {
    afterEach(async () => {
      for (const server of set.servers) if (!server.client.isReady) await server.restart();
      await set.isComplete();
    });

    it("goes on after the master was killed: no job is lost or doubled that a replica had confirmed", async () => {
      const load = await Load.start(set.url);
      const master = await set.master();
      await load.isGoingOn();
      const confirmed = await load.confirmed(master);
      await master.kill();
      const killed = performance.now();
      await load.isGoingOn();
      const recovery = performance.now() - killed;
      const result = await load.finish();
      report("Sentinel, master killed", result, recovery);
      expect(result.lost.filter((key) => confirmed.enqueued.has(key))).toEqual([]);
      expect(result.doubled.filter((key) => confirmed.ended.has(key))).toEqual([]);
      expect(confirmed.enqueued.size).toBeGreaterThan(20);
      // One line at the begin and one at the end, although hundreds of calls have failed meanwhile.
      const lines = load.log.lines.map(({ message }) => message);
      expect(lines.filter((line) => line === outage).length).toBeLessThanOrEqual(3);
      expect(lines).toContainEqual(
        expect.stringMatching(/^Redis: the queue's keys are on 127\.0\.0\.1:\d+ now$/),
      );
      expect(lines.filter((line) => line.includes(outage)).at(-1)).toMatch(/^over after [\d.]+ s: /);
    });

    it("goes on after SENTINEL FAILOVER: no job is lost or doubled that a replica had confirmed", async () => {
      const load = await Load.start(set.url);
      const before = await set.master();
      const confirmed = await load.confirmed(before);
      const began = performance.now();
      await set.failOver();
      await eventually("the master has changed", async () => (await set.master()) !== before);
      await load.isGoingOn();
      const recovery = performance.now() - began;
      const result = await load.finish();
      report("Sentinel, SENTINEL FAILOVER", result, recovery);
      expect(result.lost.filter((key) => confirmed.enqueued.has(key))).toEqual([]);
      expect(result.doubled.filter((key) => confirmed.ended.has(key))).toEqual([]);
    });

    describe("a running job", () => {
      // With these timers, a worker that is cut off from a server that works ends its jobs after 4 s.
      const options = { timers: { workerInfo: 0.2, abort: 0.2 }, cancellationHardDeadline: 0.5 };
      let reason: Error | undefined;
      const nap = async ({ signal }: { signal: AbortSignal }, { ms }: { ms: number }) => {
        signal.addEventListener("abort", () => {
          reason = signal.reason;
        });
        await sleep(ms);
        signal.throwIfAborted();
        return "slept";
      };
      const startNap = async (ms: number) => {
        const queue = openQueue({ url: set.url }, { nap }, options);
        const started = await startWorker(queue);
        const job = await queue.enqueue("nap", { ms }, { timeout: 60 });
        await eventually("the job runs", async () => (await job?.refresh())?.status === "active");
        return { ...started, job };
      };

      it.each([
        ["was killed", "SIGKILL"],
        ["does not respond", "SIGSTOP"],
      ] as const)("goes on while the master %s and no replica has taken over yet", async (_, signal) => {
        await set.setDownAfter(9_000);
        const master = await set.master();
        try {
          const { job, log, ended } = await startNap(11_000);
          expect(await master.send("WAIT", "1", "5000")).toBe(1);
          if (signal === "SIGKILL") await master.kill();
          else {
            // A machine with a Sentinel that does not respond either.
            master.signal(signal);
            set.sentinels[0]?.signal(signal);
          }
          expect(await ended(job?.key ?? "")).toBe("Finished nap");
          await eventually("its end is stored", async () => (await job?.refresh())?.status === "complete");
          expect(job).toMatchObject({ attempts: 1 });
          expect(job?.meta).toEqual({});
          expect(log.lines.filter(({ message }) => message.startsWith("Processing"))).toHaveLength(1);
        } finally {
          if (signal === "SIGSTOP")
            for (const server of [master, set.sentinels[0]]) server?.signal("SIGCONT");
          await set.setDownAfter(downAfterMs);
        }
      });

      it("goes on while the master, which the Sentinels name, accepts no writes", async () => {
        const { job, ended } = await startNap(7_000);
        const master = await set.master();
        await master.send("CONFIG", "SET", "min-replicas-to-write", "2");
        try {
          await sleep(6_000);
        } finally {
          await master.send("CONFIG", "SET", "min-replicas-to-write", "0");
        }
        expect(await ended(job?.key ?? "")).toBe("Finished nap");
        await eventually("its end is stored", async () => (await job?.refresh())?.status === "complete");
        expect(job).toMatchObject({ attempts: 1, meta: {} });
      });

      it.each([
        ["the master", () => {}],
        [
          "the master and the Sentinels",
          (signal: NodeJS.Signals) => {
            for (const sentinel of set.sentinels) sentinel.signal(signal);
          },
        ],
      ])("ends if only its worker cannot reach %s, because others will take it over", async (_, signal) => {
        reason = undefined;
        await startNap(30_000);
        const master = await set.master();
        signal("SIGSTOP");
        const allow = await master.refuseEngine();
        try {
          await eventually("its signal fires", async () => reason !== undefined);
          expect(reason).toHaveProperty(
            "message",
            expect.stringContaining("this worker could not renew its row in time"),
          );
        } finally {
          signal("SIGCONT");
          await allow();
        }
      });
    });

    it("leaves a master that was replaced without noticing it", async () => {
      const log = new LogBook();
      const queue = open({ logger: log });
      await startWorker(queue);
      expect(await queue.apply("double", { n: 1 })).toBe(2);
      const before = await set.master();
      // The Sentinels cannot demote it, so it keeps its connections and accepts writes.
      await before.send("ACL", "SETUSER", "default", "-slaveof", "-replicaof");
      try {
        await set.failOver();
        await log.saw(({ message }) => message.startsWith("Redis: the queue's keys are on "));
        expect(await before.info("role")).toBe("master");
        expect(await queue.apply("double", { n: 2 })).toBe(4);
        expect(await before.client.keys(`saq:job:${queue.name}:*`)).toHaveLength(1);
        // Connections that only wait or listen have left it too.
        expect(await before.engineConnections()).toEqual([]);
        const master = await set.master();
        await eventually("the worker waits there", async () =>
          (await master.engineConnections()).includes("b"),
        );
        expect(await master.engineConnections()).toContain("P");
      } finally {
        await before.send("ACL", "SETUSER", "default", "+slaveof", "+replicaof");
      }
    });

    it("waits for a master that is read-only for a moment, with one log line at the begin and one at the end", async () => {
      const log = new LogBook();
      const queue = open({ logger: log });
      await queue.enqueue("double", { n: 1 });
      const [master, replica] = [await set.master(), await set.replica()];
      await master.send("REPLICAOF", "127.0.0.1", String(replica.port));
      const enqueued = Promise.all([1, 2, 3].map((n) => queue.enqueue("double", { n })));
      await log.saw(({ message }) => message === outage);
      await master.send("REPLICAOF", "NO", "ONE");
      await enqueued;
      await eventually("it is over", async () => {
        expect(await queue.counts()).toMatchObject({ queued: 4 });
        return log.lines.length > 1;
      });
      const lines = log.lines.map(({ level, message }) => `${level} ${message}`);
      expect(lines).toEqual([
        `warn ${outage}`,
        expect.stringMatching(/^info over after [\d.]+ s: Redis does not answer/),
      ]);
      await replica.send("REPLICAOF", "127.0.0.1", String(master.port));
    });

    it("refuses to enqueue while min-replicas-to-write is not met, and logs one problem although reads work", async () => {
      const log = new LogBook();
      const queue = open({ logger: log });
      await queue.enqueue("double", { n: 1 });
      const master = await set.master();
      await master.send("CONFIG", "SET", "min-replicas-to-write", "2");
      try {
        const refused = queue.enqueue("double", { n: 2 });
        await log.saw(({ message }) => message === outage);
        expect(await queue.counts()).toMatchObject({ queued: 1 });
        await expect(refused).rejects.toMatchObject({
          code: "database_unavailable",
          message:
            `Redis at ${name()} accepts no writes, because fewer replicas than min-replicas-to-write are ` +
            "connected to it; nothing was stored",
        });
      } finally {
        await master.send("CONFIG", "SET", "min-replicas-to-write", "0");
      }
      expect(log.lines.map(({ message }) => message)).toEqual([outage]);
    });
  });

  const name = () => set.url.slice("redis+sentinel://".length);

  describe("the Sentinels", () => {
    it("do not know the name in the address: the error says which names they know", async () => {
      const url = set.url.replace("/mymaster/", "/other/");
      await expect(openQueue({ url }, tasks).enqueue("double", { n: 1 })).rejects.toThrow(
        new ConfigError(
          `The Sentinels of ${name().replace("/mymaster/", "/other/")} know no server with the name "other" ` +
            '(known: "mymaster"); correct the name in the DSN, after the Sentinels',
        ),
      );
    });

    it("may name a server that is a replica: nothing is sent to it", async () => {
      const replica = await set.replica();
      const config = `sentinel monitor demoted 127.0.0.1 ${replica.port} 2\n`;
      const sentinel = await TestServer.start(["--sentinel"], { config });
      closeAfterTest({ close: () => sentinel.kill() });
      const queue = openQueue({ url: `redis+sentinel://${sentinel.name}/demoted` }, tasks);
      await expect(queue.enqueue("double", { n: 1 })).rejects.toMatchObject({
        code: "database_unavailable",
        message:
          `Redis at ${sentinel.name}/demoted/0 does not answer: ${replica.name}, which a Sentinel names as the ` +
          "master, is a replica",
      });
    });

    it("may need a password of their own", async () => {
      const config = "sentinel monitor closed 127.0.0.1 1 1\nrequirepass s3cret\n";
      const sentinel = await TestServer.start(["--sentinel"], { config, password: "s3cret" });
      closeAfterTest({ close: () => sentinel.kill() });
      const enqueue = (query: string) =>
        openQueue({ url: `redis+sentinel://${sentinel.name}/closed${query}` }, tasks).enqueue("double", {
          n: 1,
        });
      await expect(enqueue("")).rejects.toThrow(
        `The Sentinel at ${sentinel.name} needs a password of its own; add ?sentinel_password=PASSWORD to the DSN`,
      );
      await expect(enqueue("?sentinel_password=wrong")).rejects.toThrow(
        `The Sentinel at ${sentinel.name} refuses sentinel_username or sentinel_password of the DSN`,
      );
      // It names a master that does not run.
      await expect(enqueue("?sentinel_password=s3cret")).rejects.toMatchObject({
        code: "database_unavailable",
        message: expect.stringContaining(
          `Redis at ${sentinel.name}/closed/0 does not answer: connect ECONNREFUSED`,
        ),
      });
    });

    it("are not followed if only one of them names another server: it may be cut off", async () => {
      const other = await TestServer.start([]);
      closeAfterTest({ close: () => other.kill() });
      const config = `sentinel monitor ${set.masterName} 127.0.0.1 ${other.port} 1\n`;
      const isolated = await TestServer.start(["--sentinel"], { config });
      closeAfterTest({ close: () => isolated.kill() });
      const [first, second, third] = set.sentinels as [TestServer, TestServer, TestServer];
      const names = [first, isolated, second, third].map(({ name }) => name);
      const log = new LogBook();
      const queue = openQueue({ url: `redis+sentinel://${names.join(",")}/${set.masterName}` }, tasks, {
        logger: log,
      });
      await startWorker(queue);
      expect(await queue.apply("double", { n: 1 })).toBe(2);
      await first.kill();
      try {
        // The isolated one is asked before it.
        await eventually(
          "the second one is asked",
          async () => (await second.engineConnections()).length > 0,
        );
        expect(await queue.apply("double", { n: 2 })).toBe(4);
        expect(await other.client.dbSize()).toBe(0);
        expect(log.lines.filter(({ message }) => message.includes("the queue's keys are on"))).toEqual([]);
      } finally {
        await first.restart();
        await set.isComplete();
      }
    });

    it("may be down except for one; if all are down, a running queue goes on and a new one is refused", async () => {
      const log = new LogBook();
      const running = open({ logger: log });
      await startWorker(running);
      const [first, second, third] = set.sentinels;
      await Promise.all([first?.kill(), second?.kill()]);
      expect(await running.apply("double", { n: 1 })).toBe(2);
      const started = open();
      await startWorker(started);
      expect(await started.apply("double", { n: 2 })).toBe(4);
      await third?.kill();
      const line = await log.saw(({ message }) => message.startsWith("no Sentinel of Redis answers"));
      expect(line).toMatchObject({
        level: "warn",
        message: "no Sentinel of Redis answers, so a fail-over would not be noticed",
        fields: { server: name() },
      });
      expect(await running.apply("double", { n: 3 })).toBe(6);
      await expect(open().enqueue("double", { n: 4 })).rejects.toMatchObject({
        code: "database_unavailable",
        message: expect.stringMatching(
          new RegExp(
            `^Redis at ${name()} does not answer: no Sentinel answers \\((127\\.0\\.0\\.1:\\d+: connect ECONNREFUSED [^;]+(; )?){3}\\)$`,
          ),
        ),
      });
    });
  });
});
