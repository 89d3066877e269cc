/** How large the parts of a job may be, and what happens to larger documents that others have stored. */
import { beforeAll, describe, expect, it } from "@jest/globals";
import type { Context } from "../../../templates/backend/saq/index.js";
import { openProxy } from "../support/cuttable-proxy.js";
import { claim, insertRow, openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";
import { can, itOnPostgres, itWithProxy, onRedis } from "../support/test-broker.js";

const database = useDatabase();
const maxBytes = 2_000;
const tasks = {
  hello: (_ctx: unknown, _payload?: object) => "hi",
  /** The result has fewer characters than `maxBytes`, but more bytes. */
  large: () => "漢".repeat(700),
  fits: () => "漢".repeat(660),
  finish: async (ctx: Context, _payload?: object) => {
    const client = await database.connect();
    await client.query("begin");
    try {
      await ctx.finish("漢".repeat(700), { client });
    } finally {
      await client.query("rollback");
    }
  },
  change: async (ctx: Context) => {
    await ctx.job.update({ meta: { text: "漢".repeat(700) } });
  },
};
const open = (options: object = {}, at: { url: string } = database) =>
  openQueue(at, tasks, { maxBytes, ...options });

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

/** Returns a document as our own enqueue writes it, or as Python does. */
const documentOf = (queue: string, key: string, text: string, from: "us" | "Python") => {
  const job = { function: "hello", kwargs: { text }, queue, key, status: "queued" };
  return from === "us" ? JSON.stringify(job) : JSON.stringify(job, null, 1);
};

describe("a stored document of more than four times maxBytes", () => {
  itWithProxy.each(["us", "Python"] as const)(
    "is set aside as failed without being read, and other jobs run: written by %s",
    async (from) => {
      const proxy = await openProxy(database);
      const queue = open({}, proxy);
      const key = `too large, from ${from}`;
      const document = documentOf(queue.name, key, "x".repeat(3_000_000), from);
      await insertRow(database, { key, queue: queue.name, document });
      const grouped = documentOf(queue.name, `${key}, grouped`, "x".repeat(3_000_000), from);
      await insertRow(database, {
        key: `${key}, grouped`,
        queue: queue.name,
        document: grouped,
        ...(can("groups") ? { group_key: "g" } : {}),
      });
      const job = await queue.enqueue("hello");
      const { ended } = await startWorker(queue);
      expect(await ended(job.key)).toMatch(/^Finished/);
      await until(async () => (await queue.counts()).failed === 2);
      expect(await rowOf(database, key)).toMatchObject({
        // On Redis, the status is a member of the document, whose bytes stay as they are.
        ...(onRedis ? {} : { status: "failed" }),
        expire_at: null,
        text: document,
      });
      const reason = /^The stored document has 3,000,\d\d\d bytes: too large to be read/;
      expect(await queue.job(key)).toMatchObject({
        function: "(unreadable)",
        status: "failed",
        error: expect.stringMatching(reason),
      });
      const listed = await queue.list({ statuses: ["failed"] });
      expect(listed.map((shown) => shown.error)).toEqual([1, 2].map(() => expect.stringMatching(reason)));
      await expect((await queue.job(key))?.refresh()).rejects.toMatchObject({ code: "poison_document" });
      expect(await queue.retry(key)).toBe("unreadable");
      expect(proxy.bytesSent).toBeLessThan(1_000_000);
    },
  );

  it("is not changed by the sweeper while its job runs elsewhere", async () => {
    const queue = open();
    const key = "too large, runs at Python";
    const document = documentOf(queue.name, key, "x".repeat(20_000), "Python");
    await insertRow(database, { key, queue: queue.name, document, status: "active" });
    const limits = { graceSeconds: 0, lostLimit: 3, checkInterval: 2, failedTtl: 600 };
    await queue.connect();
    for (let n = 0; n < 3; n++) await queue.broker.sweepStuck(limits);
    expect(await rowOf(database, key)).toMatchObject({
      ...(onRedis ? { place: "active" } : { status: "active" }),
      text: document,
    });
  });
});

it("list() reads no more bytes in all than one document may have; job() reads each document", async () => {
  const queue = open();
  const keys = ["a", "b", "c"].map((name) => `one of a list ${name}`);
  for (const key of keys) {
    const document = documentOf(queue.name, key, "x".repeat(3_000), "us");
    await insertRow(database, { key, queue: queue.name, document });
  }
  const listed = await queue.list({});
  expect(listed.map(({ key, function: name }) => [key, name])).toEqual([
    [keys[2], "hello"],
    [keys[1], "hello"],
    [keys[0], "(unreadable)"],
  ]);
  expect(await queue.job(keys[0] as string)).toMatchObject({ function: "hello" });
  expect(await claim(queue)).toHaveLength(3);
});

describe("a value larger than maxBytes", () => {
  const tooLarge = (what: string) => `${what} has 2,102 bytes as JSON, at most 2,000 can be stored`;

  it("fails its job at once, with the reason, when it is a result", async () => {
    const queue = open();
    const { ended } = await startWorker(queue);
    const large = await queue.enqueue("large", undefined, { retries: 3 });
    const fits = await queue.enqueue("fits");
    expect(await ended(large.key)).toMatch(/^Failed/);
    expect(await ended(fits.key)).toMatch(/^Finished/);
    expect(await queue.job(large.key)).toMatchObject({
      status: "failed",
      attempts: 1,
      result: null,
      error: expect.stringContaining(tooLarge('The result of task "large"')),
    });
  });

  it("is refused by ctx.job.update, and the job fails", async () => {
    const queue = open();
    const { ended } = await startWorker(queue);
    const { key } = await queue.enqueue("change");
    expect(await ended(key)).toMatch(/^Failed/);
    expect((await queue.job(key))?.error).toContain("ctx.job.update: meta has 2,111 bytes as JSON");
  });

  itOnPostgres("is refused by ctx.finish and ctx.job.update, and the job fails", async () => {
    const queue = open();
    const { ended } = await startWorker(queue);
    for (const [task, text] of [
      ["finish", tooLarge('The result of task "finish"')],
      ["change", "ctx.job.update: meta has 2,111 bytes as JSON"],
    ] as const) {
      const { key } = await queue.enqueue(task);
      expect(await ended(key)).toMatch(/^Failed/);
      expect((await queue.job(key))?.error).toContain(text);
    }
  });

  it("is refused by the queue's finish, abort and update, and nothing is changed", async () => {
    const queue = open();
    const { key } = await queue.enqueue("hello");
    await claim(queue);
    const before = await rowOf(database, key);
    const text = "漢".repeat(700);
    await expect(queue.finish(key, "complete", { result: text })).rejects.toThrow(
      tooLarge(`finish("${key}"): result`),
    );
    await expect(queue.finish(key, "failed", { error: text })).rejects.toThrow(
      tooLarge(`finish("${key}"): error`),
    );
    await expect(queue.abort(key, text)).rejects.toThrow(tooLarge(`abort("${key}"): error`));
    await expect(queue.update(key, { meta: { text } })).rejects.toThrow(
      `update("${key}"): meta has 2,111 bytes`,
    );
    expect(await rowOf(database, key)).toEqual(before);
  });
});

it("maxBytes must be between 1,024 bytes and 48 MiB", () => {
  for (const wrong of [0, 1_023, 48 * 1024 * 1024 + 1, 5_000.5])
    expect(() => open({ maxBytes: wrong })).toThrow("maxBytes must be");
});
