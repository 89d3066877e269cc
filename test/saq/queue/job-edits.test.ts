/** Edits of single jobs by hand (update, finish), and what is counted (Q-10, D-27). */
import { describe, expect, it } from "@jest/globals";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import {
  claim,
  insertRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { onRedis } from "../support/test-broker.js";

const database = useDatabase();

let begun: () => void = () => {};
const tasks = {
  work: async (_ctx: Context, _payload?: { n?: number }) => "done",
  fail: async () => {
    throw new Error("no");
  },
  wait: (ctx: Context) =>
    new Promise((resolve) => {
      ctx.signal.addEventListener("abort", () => resolve((ctx.signal.reason as Error).name));
      begun();
    }),
};
const open = (options: object = {}) => openQueue(database, tasks, options);
const members = async (key: string) =>
  JSON.parse((await rowOf(database, key))?.text ?? "null") as Record<string, unknown>;

describe("update", () => {
  it("J-20, T-87, D-21: sets the given fields in the row and the object, and the touched time; others stay", async () => {
    const queue = open();
    const job = await queue.enqueue("work", { n: 1 });
    const stale = await queue.job(job.key);
    await claim(queue);
    const before = await rowOf(database, job.key);
    expect(await stale?.update({ progress: 0.25, meta: { m: 1 }, timeout: 60, retries: 4 })).toBe("updated");
    expect(stale).toMatchObject({ progress: 0.25, meta: { m: 1 }, timeout: 60, status: "queued" });
    expect(await members(job.key)).toMatchObject({
      status: "active",
      attempts: 1,
      worker_id: "worker-1",
      started: expect.any(Number),
      touched: expect.any(Number),
      progress: 0.25,
      meta: { m: 1 },
      timeout: 60,
      retries: 4,
    });
    const after = await rowOf(database, job.key);
    // The claim stays as it was.
    expect([after?.status, after?.lock_key, after?.token]).toEqual([
      "active",
      before?.lock_key,
      before?.token,
    ]);
  });

  it("T-22, D-21: concurrent updates overwrite neither each other nor the worker's settlement", async () => {
    const queue = open();
    const job = await queue.enqueue("work");
    const [claimed] = await claim(queue);
    if (!claimed) throw new Error("claimed");
    const handles = await Promise.all([1, 2, 3, 4].map(() => queue.job(job.key)));
    await Promise.all([
      handles[0]?.update({ progress: 0.5 }),
      handles[1]?.update({ meta: { from: "outside" } }),
      handles[2]?.update({ ttl: 77 }),
      handles[3]?.update({ heartbeat: 9 }),
      settle(queue, settlement(claimed, "complete", { result: "r" })),
    ]);
    expect(await members(job.key)).toMatchObject({ status: "complete", result: "r" });
    const other = await queue.enqueue("work");
    await Promise.all([
      queue.update(other.key, { progress: 0.5 }),
      queue.update(other.key, { meta: { a: 1 } }),
      queue.update(other.key, { ttl: 77 }),
      queue.update(other.key, { heartbeat: 9 }),
    ]);
    expect(await members(other.key)).toMatchObject({
      progress: 0.5,
      meta: { a: 1 },
      ttl: 77,
      heartbeat: 9,
      status: "queued",
    });
  });

  it("D-21: changes only meta of a finished job; its result and its expiry stay", async () => {
    const queue = open();
    const job = await queue.enqueue("work");
    const [claimed] = await claim(queue);
    if (claimed) await settle(queue, settlement(claimed, "complete", { result: 5, progress: 1 }));
    const before = await rowOf(database, job.key);
    expect(await job.update({ progress: 0.5 })).toBe("finished");
    expect(await queue.update(job.key, { meta: { m: 1 }, retries: 2 })).toBe("finished");
    expect(job.progress).toBe(0);
    expect(await rowOf(database, job.key)).toEqual(before);
    expect(await queue.update(job.key, { meta: { note: "kept" } })).toBe("updated");
    expect(await members(job.key)).toMatchObject({ status: "complete", result: 5, meta: { note: "kept" } });
    expect((await rowOf(database, job.key))?.expire_at).toBe(before?.expire_at);
  });

  it("D-27, D-3: returns null for a missing row, and unreadable for a bad document, which is not changed", async () => {
    const queue = open();
    expect(await queue.update("missing", { progress: 0.5 })).toBeNull();
    await insertRow(database, { key: "unreadable", queue: queue.name, document: "{" });
    expect(await queue.update("unreadable", { progress: 0.5 })).toBe("unreadable");
    expect((await rowOf(database, "unreadable"))?.text).toBe("{");
  });

  it.each([
    [{ status: "complete" }, 'there is no option "status"'],
    [{ result: 1 }, 'there is no option "result"'],
    [{ progress: 2 }, "progress must be a number of 0 to 1, got 2"],
    [{ meta: [1] }, "meta must be an object, got [1]"],
    [{ meta: { big: 1n } }, "meta cannot be written as JSON"],
    [{ retries: 1.5 }, "retries must be a whole number >= 0"],
  ])("J-20, D-61: %j is refused, and nothing is changed", async (change, message) => {
    const queue = open();
    const job = await queue.enqueue("work");
    await expect(job.update(change as object)).rejects.toThrow(message);
    expect(await members(job.key)).not.toHaveProperty("touched");
  });

  it("J-20: ignores members that are undefined", async () => {
    const queue = open();
    const job = await queue.enqueue("work", undefined, { timeout: 44 });
    expect(await job.update({ progress: 0.5, timeout: undefined } as object)).toBe("updated");
    expect(job.timeout).toBe(44);
    expect(await members(job.key)).toMatchObject({ timeout: 44, progress: 0.5 });
  });
});

describe("finish", () => {
  it.each([
    ["complete", { result: { a: 1 } }, { result: { a: 1 }, progress: 1 }],
    ["failed", { error: "by hand" }, { error: "by hand" }],
    ["aborted", { error: "stop" }, { error: "stop" }],
  ] as const)("T-8, T-84: a running job becomes %s", async (status, outcome, expected) => {
    const queue = open();
    const job = await queue.enqueue("work", undefined, { ttl: 60 });
    await claim(queue);
    expect(await queue.finish(job.key, status, outcome)).toBe("finished");
    expect(await members(job.key)).toMatchObject({ status, completed: expect.any(Number), ...expected });
    expect(await rowOf(database, job.key)).toMatchObject({ status, expire_at: expect.any(Number) });
    expect(queue.counters).toMatchObject({ complete: 0, failed: 0, aborted: 0, [status]: 1 });
  });

  it("the worker that runs the job learns that it lost the job, and drops the task's result", async () => {
    const queue = open({ timers: { abort: 0.05 } });
    const started = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("wait");
    await started;
    expect(await queue.finish(job.key, "complete", { result: "by hand" })).toBe("finished");
    expect(await ended(job.key)).toMatch(/^lost the job/);
    expect(await job.refresh()).toMatchObject({ status: "complete", result: "by hand" });
    expect(queue.counters.complete).toBe(1);
  });

  it.each(["failed", "complete"] as const)(
    "D-20: after finish as %s, a late settlement by the previous owner changes nothing and returns lost",
    async (status) => {
      const queue = open();
      const job = await queue.enqueue("work");
      const [claimed] = await claim(queue);
      if (!claimed) throw new Error("claimed");
      await queue.finish(job.key, status, { error: "by hand", result: "by hand" });
      const before = await members(job.key);
      expect(await settle(queue, settlement(claimed, "complete", { result: 1 }))).toBe("lost");
      expect(await members(job.key)).toEqual(before);
    },
  );

  it("V-7, D-25: ends only an active job, or an aborting job as aborted; otherwise it returns the reason", async () => {
    const queue = open();
    const job = await queue.enqueue("work");
    expect(await queue.finish(job.key, "complete")).toBe("not_active");
    expect(await queue.finish("missing", "complete")).toBeNull();
    await claim(queue);
    await queue.abort(job.key, "told to end");
    expect(await queue.finish(job.key, "complete", { result: 1 })).toBe("aborting");
    expect(await members(job.key)).toMatchObject({ status: "aborting", error: "told to end" });
    expect(await queue.finish(job.key, "aborted")).toBe("finished");
    expect(await members(job.key)).toMatchObject({ status: "aborted", error: "told to end" });
    expect(await queue.finish(job.key, "failed")).toBe("not_active");
    expect(queue.counters).toMatchObject({ complete: 0, failed: 0, aborted: 1 });
  });

  it("J-16: deletes the row when ttl is -1, and keeps a failed job for failedTtl", async () => {
    const queue = open({ failedTtl: 5_000 });
    const gone = await queue.enqueue("work", undefined, { ttl: -1 });
    const kept = await queue.enqueue("work", undefined, { ttl: 5 });
    await claim(queue);
    expect(await queue.finish(gone.key, "complete")).toBe("finished");
    expect(await rowOf(database, gone.key)).toBeUndefined();
    await queue.finish(kept.key, "failed", { error: "e" });
    expect((await rowOf(database, kept.key))?.expire_at).toBeGreaterThan(Date.now() / 1_000 + 4_000);
  });

  it("D-3: sets an unreadable row aside as failed and does not change its bytes", async () => {
    const queue = open();
    await queue.connect();
    await insertRow(database, { key: "poison-run", queue: queue.name, document: "{", status: "active" });
    expect(await queue.finish("poison-run", "complete")).toBe("finished");
    // On Redis, only a readable document has a status.
    expect(await rowOf(database, "poison-run")).toMatchObject({
      ...(onRedis ? {} : { status: "failed" }),
      text: "{",
    });
  });

  it("refuses a result that cannot be written as JSON, and an invalid status", async () => {
    const queue = open();
    const job = await queue.enqueue("work");
    await claim(queue);
    await expect(queue.finish(job.key, "complete", { result: 1n })).rejects.toThrow(
      /result cannot be written as JSON: .*BigInt.*; nothing was changed/,
    );
    await expect(queue.finish(job.key, "complete", { result: () => 1 })).rejects.toThrow(
      "a function has no JSON form",
    );
    await expect(queue.finish(job.key, "queued" as "failed")).rejects.toThrow(
      'finish takes "complete", "failed" or "aborted", got "queued"',
    );
    expect((await rowOf(database, job.key))?.status).toBe("active");
  });
});

it("Q-5: apply rejects with a text that says so when a job failed without an error text", async () => {
  const queue = open();
  const applied = queue.apply("work", undefined, { key: "no-words" });
  // Attached before the end: the notification may arrive before `finish` returns.
  const rejected = expect(applied).rejects.toThrow(
    "Job no-words failed\n\nThe above job ended with the following error:\n\n(none was given)",
  );
  await until(async () => (await rowOf(database, "no-words")) !== undefined);
  await claim(queue);
  await queue.finish("no-words", "failed");
  await rejected;
});

describe("counters", () => {
  it("Q-10, T-11: count what the queue's workers, retries and aborts did; started is the time of creation", async () => {
    const before = Date.now();
    const queue = open();
    expect(queue.counters).toMatchObject({ complete: 0, failed: 0, retried: 0, aborted: 0 });
    expect(queue.counters.started).toBeGreaterThanOrEqual(before);
    const { ended } = await startWorker(queue);
    const [done, failed] = [
      await queue.enqueue("work"),
      await queue.enqueue("fail", undefined, { retries: 2 }),
    ];
    await ended(done.key);
    await ended(failed.key, 2);
    expect(queue.counters).toMatchObject({ complete: 1, failed: 1, retried: 1, aborted: 0 });
    const later = await queue.enqueue("work", undefined, { scheduled: 4e9 });
    await queue.abort(later.key);
    await queue.abort(later.key);
    expect(queue.counters).toMatchObject({ retried: 1, aborted: 1 });
    expect(await queue.retry(failed.key)).toBe("queued");
    expect(queue.counters.retried).toBe(2);
  });

  it("Q-10: count the abort of a running job once, when the job has ended", async () => {
    const queue = open({ timers: { abort: 0.05 } });
    const started = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("wait");
    await started;
    expect(await queue.abort(job.key)).toBe("aborting");
    await ended(job.key);
    await until(async () => (await rowOf(database, job.key))?.status === "aborted");
    expect(queue.counters.aborted).toBe(1);
  });

  it("D-27: count nothing for rows that do not exist", async () => {
    const queue = open();
    expect(await queue.abort("nobody")).toBeNull();
    expect(await queue.retry("nobody")).toBeNull();
    expect(await queue.finish("nobody", "failed")).toBeNull();
    expect(queue.counters).toMatchObject({ complete: 0, failed: 0, retried: 0, aborted: 0 });
  });
});
