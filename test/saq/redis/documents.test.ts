/** Which documents of a queue on Redis can be read, how many at a time, and which jobs a claim may start. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from "@jest/globals";
import { cronJob } from "../../../templates/backend/saq/config/index.js";
import type { ClaimedJob } from "../../../templates/backend/saq/core/claim.js";
import { RedisConnection } from "../../../templates/backend/saq/redis/connection.js";
import { QueueKeys } from "../../../templates/backend/saq/redis/keys.js";
import { changeScript, readScript } from "../../../templates/backend/saq/redis/lua/change.js";
import { dropScript, startScript } from "../../../templates/backend/saq/redis/lua/claim.js";
import {
  leaseRedisDatabase,
  type RedisClient,
  type RedisDatabase,
  redisMissing,
} from "../../support/redis.js";
import { LogBook } from "../support/log-book.js";
import {
  claim,
  closeAll,
  holdsNothing,
  openQueue,
  settle,
  settlement,
  startWorker,
} from "../support/scenario.js";

if (redisMissing) process.stderr.write(`Documents on Redis are not tested: ${redisMissing}.\n`);

const tasks = { ok: (_ctx: unknown, { text = "" }: { text?: string } = {}) => text.length };
const megabytes = (count: number) => ({ text: "x".repeat(count * 1_000_000) });

(redisMissing ? describe.skip : describe)("the documents of a queue on Redis", () => {
  let database: RedisDatabase;
  let redis: RedisClient;
  let name: string;
  let queues = 0;

  beforeAll(async () => {
    database = await leaseRedisDatabase();
    redis = database.client;
  });
  afterAll(() => database?.release());
  afterEach(async () => {
    jest.restoreAllMocks();
    await closeAll();
  });
  beforeEach(() => {
    name = `documents${process.pid}-${++queues}`;
  });

  const open = (options: Parameters<typeof openQueue<typeof tasks>>[2] = {}) =>
    openQueue({ url: database.url }, tasks, { name, ...options });
  const id = (key: string) => `saq:job:${name}:${key}`;
  const list = (which: "queued" | "active") => redis.lRange(`saq:${name}:${which}`, 0, -1);
  const keysOf = (jobs: readonly { key: string }[]) => jobs.map(({ key }) => key);

  describe("with bytes that are not UTF-8", () => {
    /** Replaces a character of the stored document by a byte that is not UTF-8. Returns the bytes. */
    async function damage(key: string): Promise<Buffer> {
      const document = Buffer.from((await redis.get(id(key))) ?? "");
      document[document.indexOf("damage me")] = 0xff;
      await redis.set(id(key), document);
      return document;
    }
    const asHex = `return (string.gsub(redis.call('GET', KEYS[1]), '.', function(c)
      return string.format('%02x', string.byte(c)) end))`;
    const bytesOf = async (key: string) =>
      Buffer.from(await redis.sendCommand<string>(["EVAL", asHex, "1", id(key)]), "hex");

    it("are set aside when they are claimed, and the other jobs are claimed", async () => {
      const logger = new LogBook();
      const queue = open({ logger });
      for (const key of ["a", "b", "c"]) await queue.enqueue("ok", { text: "damage me" }, { key });
      const bytes = await damage("b");
      expect(keysOf(await claim(queue))).toEqual(["a", "c"]);
      expect(await queue.job("b")).toMatchObject({ status: "failed" });
      // The claim has changed its end; the payload has the same bytes.
      const kept = bytes.subarray(0, bytes.indexOf(',"queue":'));
      expect((await bytesOf("b")).subarray(0, kept.length)).toEqual(kept);
      expect(logger.lines.map(({ message }) => message)).toContainEqual(
        expect.stringMatching(/^stored documents are not SAQ jobs/),
      );
    });

    it("that got them while they ran do not affect the jobs that are changed with them", async () => {
      const queue = open();
      for (const key of ["a", "b", "c"]) await queue.enqueue("ok", { text: "damage me" }, { key });
      const claimed = await claim(queue);
      await damage("b");
      const owned = await queue.broker.heartbeat(
        claimed.map(({ key, receipt }) => ({ key, receipt, patch: '{"progress":0.5}', removed: [] })),
      );
      expect(owned[0]).toBe(true);
      expect(owned[2]).toBe(true);
      expect(await queue.job("a")).toMatchObject({ status: "active", progress: 0.5 });
      expect(await queue.job("c")).toMatchObject({ status: "active", progress: 0.5 });
    });
  });

  it("with the character U+FFFD are read and changed like others", async () => {
    const queue = open();
    const kwargs = { text: "\uFFFD" };
    await queue.enqueue("ok", kwargs, { key: "a" });
    expect(await queue.job("a")).toMatchObject({ status: "queued", kwargs });
    await claim(queue);
    expect(await queue.job("a")).toMatchObject({ status: "active", kwargs });
    expect(await queue.broker.reconcile(holdsNothing)).toEqual(["a"]);
    expect(await queue.job("a")).toMatchObject({ status: "queued", kwargs, attempts: 0 });
    expect(keysOf(await claim(queue))).toEqual(["a"]);
  });

  describe("of many megabytes", () => {
    it("are claimed up to 16 MiB at a time, in order; the other ids stay at the head of the queue", async () => {
      const queue = open();
      for (const key of ["a", "b", "c", "d", "e"]) await queue.enqueue("ok", megabytes(5), { key });
      await queue.enqueue("ok", {}, { key: "small" });
      await queue.connect();
      const request = { workerId: "w", limit: 10, grouped: false, priorities: queue.config.priorities };
      const first = await queue.broker.claim(request);
      expect(keysOf(first.jobs)).toEqual(["a", "b", "c"]);
      expect(first.more).toBe(true);
      expect(await list("queued")).toEqual(["d", "e", "small"].map(id));
      expect(await list("active")).toEqual(["a", "b", "c"].map(id));
      expect(Object.keys(await redis.hGetAll(`saq:${name}:ts:claims`)).sort()).toEqual(
        ["a", "b", "c"].map(id),
      );
      const second = await queue.broker.claim(request);
      expect(keysOf(second.jobs)).toEqual(["d", "e", "small"]);
    });

    it("are claimed alone if they have more than 16 MiB", async () => {
      const queue = open({ maxBytes: 20_000_000 });
      for (const key of ["a", "b"]) await queue.enqueue("ok", megabytes(17), { key });
      expect(keysOf(await claim(queue))).toEqual(["a"]);
      expect(keysOf(await claim(queue))).toEqual(["b"]);
    });

    it("are changed up to 16 MiB at a time", async () => {
      const queue = open();
      const keys = ["a", "b", "c", "d", "e", "f", "g"];
      for (const key of keys) await queue.enqueue("ok", megabytes(5), { key });
      for (let claimed = 0; claimed < keys.length; ) claimed += (await claim(queue)).length;
      const run = jest.spyOn(RedisConnection.prototype, "run");
      expect((await queue.broker.reconcile(holdsNothing)).sort()).toEqual(keys);
      expect(await queue.counts()).toMatchObject({ queued: keys.length, active: 0 });
      const scripts = run.mock.calls.map(([script]) => script);
      expect(scripts.filter((script) => script === readScript)).toHaveLength(3);
      expect(scripts.filter((script) => script === changeScript)).toHaveLength(3);
    });
  });

  it("that are too large to be listed with the others have the status of their list", async () => {
    const queue = open({ maxBytes: 30_000 });
    for (const key of ["a", "b", "c", "d", "e"])
      await queue.enqueue("ok", { text: "x".repeat(29_000) }, { key });
    const queued = await queue.broker.list({ statuses: ["queued"], offset: 0, limit: 10 });
    expect(queued.map(({ key, status }) => [key, status])).toEqual(
      ["e", "d", "c", "b", "a"].map((key) => [key, "queued"]),
    );
    expect(queued.map(({ unreadBytes }) => unreadBytes !== undefined)).toEqual([
      false,
      false,
      false,
      false,
      true,
    ]);
  });

  describe("an id in the queue", () => {
    it("of a job that is not due yet starts nothing", async () => {
      const queue = open();
      const inAnHour = Math.floor(Date.now() / 1_000) + 3_600;
      await queue.enqueue("ok", {}, { key: "later", scheduled: inAnHour });
      await redis.rPush(`saq:${name}:queued`, id("later"));
      await queue.enqueue("ok", {}, { key: "now" });
      expect(keysOf(await claim(queue))).toEqual(["now"]);
      expect(await queue.job("later")).toMatchObject({ status: "queued", attempts: 0, scheduled: inAnHour });
      expect(await list("active")).toEqual([id("now")]);
      expect(await queue.counts()).toMatchObject({ scheduled: 1, active: 1, aborting: 0 });
    });

    it("of a job whose time was changed while a worker took it goes back with that time", async () => {
      const queue = open();
      await queue.enqueue("ok", {}, { key: "a" });
      const inAnHour = Math.floor(Date.now() / 1_000) + 3_600;
      const run = RedisConnection.prototype.run;
      const between = jest.spyOn(RedisConnection.prototype, "run");
      between.mockImplementation(async function (this: RedisConnection, ...args) {
        if (args[0] === startScript) {
          between.mockRestore();
          const document = JSON.parse((await redis.get(id("a"))) ?? "");
          await redis.set(id("a"), JSON.stringify({ ...document, scheduled: inAnHour }));
          await redis.zAdd(`saq:${name}:incomplete`, { value: id("a"), score: inAnHour });
          await redis.hDel(`saq:${name}:ts:claims`, id("a"));
        }
        return run.apply(this, args);
      });
      expect(await claim(queue)).toEqual([]);
      expect(await queue.job("a")).toMatchObject({ status: "queued", scheduled: inAnHour, attempts: 0 });
      expect(await list("active")).toEqual([]);
      expect(await queue.counts()).toMatchObject({ scheduled: 1, active: 0, queued: 0, aborting: 0 });
    });

    it("of a job that another worker runs does not remove the job from the list of running ones", async () => {
      const queue = open();
      await queue.enqueue("ok", {}, { key: "a" });
      await claim(queue, { workerId: "worker-1" });
      await redis.rPush(`saq:${name}:queued`, id("a"));
      expect(await claim(queue, { workerId: "worker-2" })).toEqual([]);
      expect(await list("active")).toEqual([id("a")]);
      expect(await queue.job("a")).toMatchObject({ status: "active", workerId: "worker-1" });
    });
  });

  it("a late claim does not drop the id of another worker's run", async () => {
    const queue = open();
    await queue.enqueue("ok", {}, { key: "a" });
    await claim(queue);
    const drop = { keys: [`saq:${name}:active`, `saq:${name}:ts:claims`], arguments: ["a token", id("a")] };
    await redis.eval(dropScript.text, drop);
    expect(await list("active")).toEqual([id("a")]);
    expect(await queue.counts()).toMatchObject({ active: 1, aborting: 0 });
  });

  it("of a queue with another name are never overwritten, although the keys are the same text", async () => {
    const [outer, inner] = [open(), open({ name: `${name}:b` })];
    await outer.enqueue("ok", { text: "outer" }, { key: "b:k" });
    const refused = { enqueued: false, reason: "other_queue", key: "k" };
    expect(await inner.enqueueDetailed("ok", { text: "inner" }, { key: "k" })).toEqual(refused);
    expect(await outer.job("b:k")).toMatchObject({ kwargs: { text: "outer" }, status: "queued" });
    expect(await inner.counts()).toMatchObject({ queued: 0 });
  });

  it("of a queue with another name keep the key of a scheduled task, which is logged", async () => {
    const [outer, log] = [open(), new LogBook()];
    await outer.enqueue("ok", {}, { key: "b:cron:ok" });
    const scheduledTasks = [cronJob("ok", { cron: "* * * * * *" })];
    await startWorker(open({ name: `${name}:b`, scheduledTasks }), { logger: log });
    await log.saw(({ message }) => message.includes("another queue in this database uses its key"));
    expect(await outer.job("b:cron:ok")).toMatchObject({ status: "queued" });
  });

  it("that Python has written for a queue with a name beyond ASCII free their keys at their ends", async () => {
    const queue = open({ name: `${name}-größe` });
    await queue.enqueue("ok", {}, { key: "k" });
    await claim(queue);
    const idOf = `saq:job:${queue.name}:k`;
    const ended = { ...JSON.parse((await redis.get(idOf)) ?? ""), status: "complete" };
    const escaped = JSON.stringify(ended).replace("größe", "gr\\u00f6\\u00dfe");
    expect(escaped).toContain("\\u00f6");
    await redis.set(idOf, escaped);
    for (const key of ["active", "incomplete", "ts:claims"]) await redis.del(`saq:${queue.name}:${key}`);
    expect(await queue.enqueue("ok", {}, { key: "k" })).toMatchObject({ status: "queued" });
  });

  it("that have expired leave the sets of finished jobs, however many they are", async () => {
    const queue = open();
    await queue.connect();
    await queue.enqueue("ok", {}, { key: "one" });
    const [job] = await claim(queue);
    await settle(queue, settlement(job as ClaimedJob, "complete"));
    const found = new QueueKeys(name, { isCluster: false }).finished("complete");
    expect(await redis.zRange(found, 0, -1)).toEqual([id("one")]);
    const expired = Array.from({ length: 1_203 }, (_, n) => ({ value: id(`gone${n}`), score: n + 1 }));
    await redis.zAdd(found, expired);
    await queue.broker.sweepStuck({ graceSeconds: 7, lostLimit: 3, checkInterval: 2, failedTtl: 600 });
    expect(await redis.zRange(found, 0, -1)).toEqual([id("one")]);
  });
});
