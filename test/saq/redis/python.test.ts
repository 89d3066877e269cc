/**
 * Queues on Redis that Python SAQ shares. What Python writes is written here command by command, as it was recorded from
 * SAQ 0.26.3.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { forgetScript } from "../../../templates/backend/saq/redis/lua/workers.js";
import {
  leaseRedisDatabase,
  type RedisClient,
  type RedisDatabase,
  redisMissing,
} from "../../support/redis.js";
import {
  claim,
  closeAll,
  holdsNothing,
  openQueue,
  settle,
  settlement,
  startWorker,
  until,
} from "../support/scenario.js";

if (redisMissing) process.stderr.write(`Queues on Redis are not tested: ${redisMissing}.\n`);

const runs: string[] = [];
const tasks = {
  ok: async (ctx: { job: { key: string } }, _payload?: { a: number }) => {
    runs.push(ctx.job.key);
    return 1;
  },
  slow: async (ctx: { job: { key: string }; signal: AbortSignal }) => {
    runs.push(ctx.job.key);
    await sleep(60_000, undefined, { signal: ctx.signal });
  },
};

(redisMissing ? describe.skip : describe)("a queue on Redis that Python shares", () => {
  let database: RedisDatabase;
  let redis: RedisClient;
  let name: string;
  let queues = 0;

  beforeAll(async () => {
    database = await leaseRedisDatabase();
    redis = database.client;
  });
  afterAll(() => database?.release());
  afterEach(closeAll);
  beforeEach(() => {
    runs.length = 0;
    name = `python${process.pid}-${++queues}`;
  });

  const open = (options: Parameters<typeof openQueue<typeof tasks>>[2] = {}) =>
    openQueue({ url: database.url }, tasks, { name, ...options });
  const id = (key: string, queue = name) => `saq:job:${queue}:${key}`;
  const list = (which: "queued" | "active") => redis.lRange(`saq:${name}:${which}`, 0, -1);
  const score = (key: string) => redis.zScore(`saq:${name}:incomplete`, id(key));
  const documentOf = async (key: string) => JSON.parse((await redis.get(id(key))) ?? "null");
  const seconds = () => Math.floor(Date.now() / 1_000);

  const python = {
    document: (key: string, members: object = {}) =>
      `{"function": "ok", "queue": "${name}", "key": "${key}", "queued": ${Date.now()}, ${JSON.stringify({ status: "queued", ...members }).slice(1)}`,
    async enqueue(key: string, members: object = {}) {
      await redis.set(id(key), python.document(key, members));
      await redis.zAdd(`saq:${name}:incomplete`, { value: id(key), score: 0 });
      await redis.rPush(`saq:${name}:queued`, id(key));
    },
    async start(key: string, members: object = {}) {
      await redis.lMove(`saq:${name}:queued`, `saq:${name}:active`, "LEFT", "RIGHT");
      const now = Date.now();
      const started = { attempts: 1, started: now, touched: now, status: "active", worker_id: "W1" };
      await redis.set(id(key), python.document(key, { ...started, ...members }));
      await redis.publish(id(key), "active");
    },
  };

  describe("writes what Python reads", () => {
    it("a job that is due: document, score 0, at the end of the list, no expiry", async () => {
      const queue = open();
      await queue.enqueue("ok", { a: 1 }, { key: "first" });
      await queue.enqueue("ok", { a: 1 }, { key: "k" });
      expect(await documentOf("k")).toEqual({
        function: "ok",
        kwargs: { a: 1 },
        queue: name,
        key: "k",
        queued: expect.any(Number),
        status: "queued",
      });
      expect(await score("k")).toBe(0);
      expect(await list("queued")).toEqual([id("first"), id("k")]);
      expect(await redis.ttl(id("k"))).toBe(-1);
    });

    it("a job that is due later: its due second is the score, and it is in no list", async () => {
      const queue = open();
      const due = seconds() + 100;
      await queue.enqueue("ok", undefined, { key: "k", scheduled: due });
      expect(await score("k")).toBe(due);
      expect(await list("queued")).toEqual([]);
      expect(await documentOf("k")).toMatchObject({ scheduled: due, status: "queued" });
    });

    it.each([
      ["600", 600, 600],
      ["0", 0, -1],
      ["-1", -1, -2],
    ])("a finished job with ttl %s", async (_name, ttl, expected) => {
      const queue = open();
      const { ended } = await startWorker(queue);
      const messages: string[] = [];
      const subscriber = redis.duplicate();
      await subscriber.connect();
      await subscriber.subscribe(id("k"), (message) => messages.push(message));
      await queue.enqueue("ok", undefined, { key: "k", ttl });
      await ended("k");
      const left = await redis.ttl(id("k"));
      if (expected > 0) expect(left).toBeGreaterThan(expected - 10);
      else expect(left).toBe(expected);
      await until(async () => messages.includes("complete"));
      expect(await list("active")).toEqual([]);
      expect(await score("k")).toBeNull();
      await subscriber.close();
    });

    it("an abort of a job that Python runs: aborting, in no list, with the abort key for 5 s", async () => {
      const queue = open();
      await python.enqueue("k");
      await python.start("k");
      expect(await (await queue.job("k"))?.abort("stop")).toBe("aborting");
      expect(await documentOf("k")).toMatchObject({ status: "aborting", error: "stop" });
      expect(await list("active")).toEqual([]);
      expect(await score("k")).toBeNull();
      expect(await redis.ttl("saq:abort:k")).toBeGreaterThan(3);
    });
  });

  describe("reads what Python writes", () => {
    it("runs a job that Python enqueued, without waiting for a timer", async () => {
      const queue = open();
      const { ended } = await startWorker(queue);
      await sleep(1_500);
      const from = performance.now();
      await python.enqueue("k");
      expect(await ended("k")).toBe("Finished ok");
      // The timers of the worker look every second or less often.
      expect(performance.now() - from).toBeLessThan(900);
      expect(await documentOf("k")).toMatchObject({ status: "complete", attempts: 1, result: 1 });
    });

    it("runs a job once that Python retried without delay although it had a due time", async () => {
      const queue = open();
      await python.enqueue("k", { scheduled: seconds() - 5, attempts: 1, error: "oops", retries: 5 });
      await redis.zAdd(`saq:${name}:incomplete`, { value: id("k"), score: seconds() - 5 });
      const { ended } = await startWorker(queue);
      await ended("k");
      await sleep(2_200);
      expect(runs).toEqual(["k"]);
      expect(await documentOf("k")).toMatchObject({ status: "complete", attempts: 2 });
    });

    it("runs a job once whose id is twice in the list", async () => {
      const queue = open({ concurrency: 1 });
      await python.enqueue("k");
      await python.enqueue("other");
      await redis.rPush(`saq:${name}:queued`, id("k"));
      const { ended } = await startWorker(queue);
      await Promise.all([ended("k"), ended("other")]);
      await until(async () => (await list("queued")).length === 0);
      await sleep(300);
      expect([...runs].sort()).toEqual(["k", "other"]);
      expect(await list("active")).toEqual([]);
    });

    it("drops an id without a document and claims the next job", async () => {
      const queue = open({ concurrency: 1 });
      await redis.rPush(`saq:${name}:queued`, id("gone"));
      await python.enqueue("k");
      const { ended } = await startWorker(queue);
      expect(await ended("k")).toBe("Finished ok");
      expect(await list("active")).toEqual([]);
    });

    it.each([
      ["no JSON", "{"],
      ["no object", "[1]"],
      ["without a function", '{"queue": "elsewhere", "key": "bad"}'],
    ])(
      "sets a document aside that is %s, keeps its bytes, and runs the other jobs",
      async (_name, document) => {
        const queue = open({ concurrency: 1 });
        await python.enqueue("bad");
        await redis.set(id("bad"), document);
        await python.enqueue("k");
        const { ended } = await startWorker(queue);
        expect(await ended("k")).toBe("Finished ok");
        expect(await redis.get(id("bad"))).toBe(document);
        expect(await list("active")).toEqual([]);
        expect(await score("bad")).toBeNull();
      },
    );
  });

  it("sets a document of another queue aside", async () => {
    const queue = open();
    await python.enqueue("bad");
    const document = '{"function": "ok", "queue": "elsewhere", "key": "bad", "status": "queued"}';
    await redis.set(id("bad"), document);
    await startWorker(queue);
    await until(async () => (await score("bad")) === null);
    expect(await documentOf("bad")).toMatchObject({ queue: "elsewhere" });
    expect(await list("active")).toEqual([]);
    expect(runs).toEqual([]);
    expect((await queue.job("bad"))?.status).toBe("failed");
  });

  describe("does not repeat SAQ's faults", () => {
    it("a retry of a job that was scheduled gets score 0, so no timer queues it again", async () => {
      const queue = open();
      await queue.enqueue("ok", undefined, { key: "k", scheduled: seconds() - 5, retries: 3 });
      const [claimed] = await claim(queue, { limit: 1 });
      if (!claimed) throw new Error("nothing was claimed");
      await settle(queue, settlement(claimed, "queued", { scheduled: seconds() - 1 }));
      expect(await score("k")).toBe(0);
      expect(await list("queued")).toEqual([id("k")]);
    });

    it("an update of a deleted job does not create it again", async () => {
      const queue = open();
      const job = await queue.enqueue("ok", undefined, { key: "k", scheduled: seconds() + 100 });
      if (!job) throw new Error("not stored");
      await redis.del(id("k"));
      expect(await job.update({ progress: 0.5 })).toBeNull();
      expect(await redis.exists(id("k"))).toBe(0);
    });

    it("an update of a finished job keeps its expiry", async () => {
      const queue = open();
      const { ended } = await startWorker(queue);
      const job = await queue.enqueue("ok", undefined, { key: "k" });
      await ended("k");
      await job?.update({ meta: { seen: true } });
      expect(await redis.ttl(id("k"))).toBeGreaterThan(500);
      expect(await documentOf("k")).toMatchObject({ status: "complete", meta: { seen: true } });
    });

    it("an abort of a finished job changes nothing", async () => {
      const queue = open();
      const { ended } = await startWorker(queue);
      const job = await queue.enqueue("ok", undefined, { key: "k" });
      await ended("k");
      expect(await job?.abort("late")).toBe("not_active");
      expect(await documentOf("k")).toMatchObject({ status: "complete" });
      expect(await redis.ttl(id("k"))).toBeGreaterThan(500);
      expect(await redis.exists("saq:abort:k")).toBe(0);
    });

    it("the sweep of a stuck job leaves no abort key, and its key can be enqueued at once", async () => {
      const queue = open({ timers: { sweep: 0.2 } });
      await python.enqueue("k");
      await python.start("k", {
        started: Date.now() - 3_600_000,
        touched: Date.now() - 3_600_000,
        timeout: 1,
      });
      await startWorker(queue);
      await until(async () => (await documentOf("k")).status === "aborted");
      expect(await redis.exists("saq:abort:k")).toBe(0);
      expect(await queue.enqueue("ok", undefined, { key: "k" })).not.toBeNull();
    });

    it("one unreadable document in the list of running jobs does not stop the sweep", async () => {
      const queue = open({ timers: { sweep: 0.2 } });
      await redis.rPush(`saq:${name}:active`, [id("bad"), id("gone")]);
      await redis.set(id("bad"), "not JSON");
      await python.enqueue("k");
      await python.start("k", {
        started: Date.now() - 3_600_000,
        touched: Date.now() - 3_600_000,
        timeout: 1,
      });
      await startWorker(queue);
      await until(async () => (await documentOf("k")).status === "aborted");
      await until(async () => (await list("active")).length === 0);
      expect(await redis.get(id("bad"))).toBe("not JSON");
    });

    it("a queue does not list the jobs of a queue whose name matches its name as a pattern", async () => {
      const plain = name;
      const star = openQueue({ url: database.url }, tasks, { name: `${plain}*` });
      const longer = openQueue({ url: database.url }, tasks, { name: `${plain}x` });
      await star.enqueue("ok", undefined, { key: "own" });
      await longer.enqueue("ok", undefined, { key: "foreign" });
      const keys: string[] = [];
      for await (const job of star.iterJobs()) keys.push(job.key);
      expect(keys).toEqual(["own"]);
    });

    it("the same key in two queues is two jobs", async () => {
      const queue = open();
      const other = openQueue({ url: database.url }, tasks, { name: `${name}-other` });
      expect(await queue.enqueue("ok", undefined, { key: "k" })).not.toBeNull();
      expect(await other.enqueue("ok", undefined, { key: "k" })).not.toBeNull();
    });
  });

  it("the sweep forgets a finished job only if its key has no new job by then", async () => {
    const queue = open();
    await queue.enqueue("ok", undefined, { key: "k" });
    const lists = [`saq:${name}:active`, `saq:${name}:incomplete`, `saq:${name}:ts:claims`];
    // The hash of a document that was read before the new job was stored.
    const forget = (hash: string) =>
      redis.eval(forgetScript.text, { keys: [...lists, id("k")], arguments: [hash] });
    await forget("0".repeat(40));
    await forget("");
    expect(await score("k")).toBe(0);
    await redis.del(id("k"));
    await forget("");
    expect(await score("k")).toBeNull();
  });

  describe("a worker that is late", () => {
    it("changes nothing after another worker has taken its job over", async () => {
      const queue = open();
      await queue.enqueue("ok", undefined, { key: "k", retries: 5 });
      const [late] = await claim(queue, { limit: 1, workerId: "lease-a-1-00000000" });
      if (!late) throw new Error("nothing was claimed");
      await queue.broker.recordLost([late], { lostLimit: 3, failedTtl: 600 });
      const [present] = await claim(queue, { limit: 1, workerId: "lease-b-1-00000000" });
      if (!present) throw new Error("nothing was claimed");
      const before = await redis.get(id("k"));
      expect(await settle(queue, settlement(late, "complete"))).toBe("lost");
      expect(await redis.get(id("k"))).toBe(before);
      expect(await queue.broker.findInterrupted([late])).toEqual([{ key: "k", reason: "lost" }]);
      expect(await settle(queue, settlement(present, "complete"))).toBe("applied");
    });

    it("changes nothing after a Python worker has taken its job over", async () => {
      const queue = open();
      await queue.enqueue("ok", undefined, { key: "k" });
      const [late] = await claim(queue, { limit: 1 });
      if (!late) throw new Error("nothing was claimed");
      await redis.lRem(`saq:${name}:active`, 1, id("k"));
      await redis.rPush(`saq:${name}:queued`, id("k"));
      await python.start("k", { attempts: 2 });
      const before = await redis.get(id("k"));
      expect(await settle(queue, settlement(late, "complete"))).toBe("lost");
      expect(await redis.get(id("k"))).toBe(before);
    });

    it("loses its jobs when its lease has expired: they wait again, and no attempt counts", async () => {
      const queue = open({ timers: { lost: 0.2 } });
      await queue.enqueue("ok", undefined, { key: "k" });
      const workerId = "lease-dead-1-00000000";
      await claim(queue, { limit: 1, workerId });
      await redis.zAdd(`saq:${name}:ts:leases`, { value: workerId, score: Date.now() - 60_000 });
      const { ended } = await startWorker(queue);
      expect(await ended("k")).toBe("Finished ok");
      expect(await documentOf("k")).toMatchObject({ attempts: 1, meta: { lost: 1 } });
      expect(await redis.hLen(`saq:${name}:ts:claims`)).toBe(0);
    });
  });

  it("a key is free again when Python has ended the job that was being aborted", async () => {
    const queue = open();
    await queue.enqueue("ok", { a: 1 }, { key: "k" });
    await claim(queue);
    expect(await queue.abort("k", "enough")).toBe("aborting");
    expect(await queue.enqueue("ok", { a: 2 }, { key: "k" })).toBeNull();
    // What Python writes when its worker ends the job. It does not know the claim.
    const job = JSON.parse((await redis.get(id("k"))) ?? "");
    await redis.set(id("k"), JSON.stringify({ ...job, status: "aborted", completed: Date.now() }), {
      EX: 600,
    });
    await redis.del(`saq:abort:k`);
    expect(await redis.hExists(`saq:${name}:ts:claims`, id("k"))).toBe(1);
    expect(await queue.enqueue("ok", { a: 3 }, { key: "k" })).toMatchObject({ status: "queued" });
    expect(await redis.hExists(`saq:${name}:ts:claims`, id("k"))).toBe(0);
  });

  it("a job that Python retries later is not put back at once, although our claim is left", async () => {
    const queue = open();
    await queue.enqueue("ok", { a: 1 }, { key: "k" });
    await claim(queue, { workerId: "worker-1" });
    // Python's sweep of a stuck job with a retry delay.
    const due = Math.floor(Date.now() / 1_000) + 600;
    const job = JSON.parse((await redis.get(id("k"))) ?? "");
    await redis.set(id("k"), JSON.stringify({ ...job, status: "queued" }));
    await redis.lRem(`saq:${name}:active`, 1, id("k"));
    await redis.zAdd(`saq:${name}:incomplete`, { value: id("k"), score: due });
    await queue.broker.reconcile({ ...holdsNothing, workerId: "worker-1" });
    expect(await redis.zScore(`saq:${name}:incomplete`, id("k"))).toBe(due);
    expect(await list("queued")).toEqual([]);
    expect(await redis.hExists(`saq:${name}:ts:claims`, id("k"))).toBe(0);
  });
});
