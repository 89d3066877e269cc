/**
 * `apply` enqueues a job and waits for its result: notifications wake it, and polling finds ends without a
 * notification.
 */
import { describe, expect, it, jest } from "@jest/globals";
import { JobGoneError, TimeoutError } from "../../../templates/backend/saq/errors.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { JobError } from "../../../templates/backend/saq/queue/results.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { openProxy } from "../support/cuttable-proxy.js";
import {
  claim,
  deleteRow,
  editRow,
  openQueue,
  rowOf,
  serverSeconds,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { stepClock } from "../support/stepped-clock.js";
import { itOnRedis, itOnTables, itWithProxy, itWithPush, onRedis } from "../support/test-broker.js";

const database = useDatabase();

const tasks = {
  double: async (_ctx: Context, { n }: { n: number }) => 2 * n,
  nothing: async () => {},
  fail: async () => {
    throw new Error("no such user");
  },
  never: (ctx: Context) =>
    new Promise((_, reject) => ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason))),
  other: async () => "other",
};
type Tasks = typeof tasks;

const open = (options: object = {}) => openQueue(database, tasks, options);

/** Spies on the broker calls of this queue that read jobs by key. */
const readsOf = (queue: Queue<Tasks>) => jest.spyOn(queue.broker, "jobs");

/** Ends a job like a worker that sends no notification. */
async function endSilently(key: string, status: string, members: object): Promise<void> {
  const expire_at = (await serverSeconds(database)) + 600;
  await editRow(database, key, { status, expire_at, members: { status, ...members } });
}

const isStored = (key: string) => until(async () => (await rowOf(database, key)) !== undefined);

describe("the result of apply", () => {
  itWithPush(
    "Q-5, T-15: apply gets results of another queue object's worker by notification, with few reads",
    async () => {
      const queue = open();
      await startWorker(openQueue(database, tasks, { name: queue.name }));
      const reads = readsOf(queue);
      expect(await queue.apply("double", { n: 21 })).toBe(42);
      expect(await queue.apply("nothing")).toBeNull();
      const many = await Promise.all(Array.from({ length: 50 }, (_, n) => queue.apply("double", { n })));
      expect(many).toEqual(Array.from({ length: 50 }, (_, n) => 2 * n));
      // Fewer calls than jobs: rows that must be read are read together.
      expect(reads.mock.calls.length).toBeLessThan(40);
      expect(reads.mock.calls.flatMap(([keys]) => keys).length).toBeLessThan(200);
    },
  );

  itWithPush(
    "Q-5: the settlement notification carries the result, and only the caller gets it; the row is not read",
    async () => {
      const queue = open();
      const peer = open({ name: queue.name });
      const overheard: unknown[] = [];
      await peer.broker.onJobEvents((event) => overheard.push(event));
      readsOf(queue).mockImplementation(async (keys) =>
        (await peer.broker.jobs(keys)).map((row) => row && { ...row, status: "active" }),
      );
      const applied = queue.apply("double", { n: 1 });
      await until(async () => (await peer.counts()).queued === 1);
      const [job] = await claim(peer);
      if (!job) throw new Error("one was claimed");
      const { meta } = JSON.parse(job.document) as { meta: { awaited: string } };
      const told = settlement(
        job,
        "complete",
        { result: 2 },
        { awaited: meta.awaited, result: '{"n":"two\\n"}' },
      );
      expect(await settle(peer, told)).toBe("applied");
      expect(await applied).toEqual({ n: "two\n" });
      expect(overheard).toEqual([]);
    },
  );

  it("Q-5: a result that is too long for a notification is read from its row, also with multi-byte characters", async () => {
    const queue = openQueue(database, {
      long: async (_ctx: Context, { of }: { of: string }) => of.repeat(3_000),
    });
    await startWorker(queue);
    expect(await queue.apply("long", { of: "x" })).toBe("x".repeat(3_000));
    expect(await queue.apply("long", { of: "ä\u{1f600}" })).toBe("ä\u{1f600}".repeat(3_000));
  });

  itWithPush(
    "Q-5: a notification at a reply address is ignored if it is not a result of the awaited job",
    async () => {
      const queue = open();
      const peer = open({ name: queue.name });
      const applied = queue.apply("double", { n: 1 });
      await until(async () => (await peer.counts()).queued === 1);
      const [job] = await claim(peer);
      if (!job) throw new Error("one was claimed");
      const { meta } = JSON.parse(job.document) as { meta: { awaited: string } };
      await database.stored.reply(meta.awaited, `complete ${job.key}\nno JSON`);
      // Another job copies the first job's address, and its key begins with the first job's key.
      await peer.enqueue("double", { n: 5 }, { key: `${job.key}\n`, meta });
      const [other] = await claim(peer);
      if (!other) throw new Error("the other was claimed");
      const end = { awaited: meta.awaited, result: "10" };
      expect(await settle(peer, settlement(other, "complete", { result: 10 }, end))).toBe("applied");
      expect(await settle(peer, settlement(job, "complete", { result: 2 }, { ...end, result: "2" }))).toBe(
        "applied",
      );
      expect(await applied).toBe(2);
    },
  );

  it("an invalid reply address does not prevent the settlement of its job", async () => {
    const queue = open();
    await startWorker(queue);
    for (const awaited of ["", "no address", "a".repeat(100), 5, {}]) {
      const job = await queue.enqueue("nothing", undefined, { meta: { awaited } });
      expect(await job.refresh(10)).toMatchObject({ status: "complete", meta: { awaited } });
    }
  });

  it("Q-5, D-71: apply rejects with the job and its error when the job fails", async () => {
    const queue = open();
    await startWorker(queue);
    const error = await queue.apply("fail", undefined, { key: "will-fail" }).catch((reason) => reason);
    expect(error).toBeInstanceOf(JobError);
    expect(error.name).toBe("JobError");
    expect(error.code).toBe("job_failed");
    expect(error.job).toMatchObject({ key: "will-fail", status: "failed" });
    expect(error.message).toMatch(
      /^Job will-fail failed\n\nThe above job ended with the following error:\n\nError: no such user\n {4}at /,
    );
    expect(await error.job.retry()).toBe("queued");
  });

  it("Q-5: apply rejects at once when its job is aborted", async () => {
    const queue = open();
    const applied = queue.apply("double", { n: 1 }, { key: "to-abort" });
    // Attached before the abort: the notification may arrive before the abort call returns.
    const rejected = expect(applied).rejects.toThrow(
      "Job to-abort aborted\n\nThe above job ended with the following error:\n\nnot wanted",
    );
    await isStored("to-abort");
    await queue.abort("to-abort", "not wanted");
    await rejected;
  });

  it("Q-6: apply waits for the job that has its key; a finished one that was due later is not run again", async () => {
    const queue = open();
    const soon = Math.floor(Date.now() / 1_000) + 3_600;
    await queue.enqueue("double", { n: 4 }, { key: "taken", scheduled: soon });
    const applied = queue.apply("double", { n: 5 }, { key: "taken" });
    await until(async () => (await queue.counts()).scheduled === 1);
    await endSilently("taken", "complete", { result: 8 });
    expect(await applied).toBe(8);
    // On Redis the key of a finished job is free at once, as in SAQ.
    if (onRedis) return;
    // The row is due later than a new job would be, so no new job is stored (V-5.2).
    expect(await queue.apply("double", { n: 6 }, { key: "taken" })).toBe(8);
  });

  it("Q-6: apply rejects when its key belongs to a job of another task", async () => {
    const queue = open();
    const later = { scheduled: Math.floor(Date.now() / 1_000) + 3_600 };
    await queue.enqueue("other", undefined, { key: "of-other", ...later });
    const end = () => endSilently("of-other", "complete", { result: "other" });
    // On Redis, a finished job does not block its key: there the job ends during the wait.
    if (!onRedis) await end();
    const rejected = expect(queue.apply("double", { n: 1 }, { key: "of-other" })).rejects.toThrow(
      'Job of-other is a job of task "other", not "double"',
    );
    if (onRedis) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      await end();
    }
    await rejected;
  });

  itOnRedis("Q-6: a job of another queue with the same key is another job", async () => {
    const queue = open();
    const elsewhere = open();
    await elsewhere.enqueue("double", { n: 1 }, { key: "elsewhere" });
    await startWorker(queue);
    expect(await queue.apply("double", { n: 4 }, { key: "elsewhere" })).toBe(8);
    expect(await elsewhere.job("elsewhere")).toMatchObject({ status: "queued", kwargs: { n: 1 } });
  });

  itOnTables("Q-6: apply rejects when its key belongs to a job of another queue", async () => {
    const queue = open();
    const elsewhere = open();
    await elsewhere.enqueue("double", { n: 1 }, { key: "elsewhere" });
    await expect(queue.apply("double", { n: 1 }, { key: "elsewhere" })).rejects.toMatchObject({
      code: "other_queue",
      message: expect.stringContaining('Job key "elsewhere" belongs to a job of another queue'),
    });
  });

  it("T-63: ctx.apply returns the result of another task of the queue, and refuses an unknown task", async () => {
    const fib = async (_ctx: Context, { n }: { n: number }): Promise<number> => 2 * n;
    const outer = async (ctx: Context, { n }: { n: number }) => (await ctx.apply(fib, { n })) + 1;
    const queue = openQueue(database, { fib, outer });
    await startWorker(queue);
    expect(await queue.apply("outer", { n: 5 })).toBe(11);
    const foreign = openQueue(database, { outer });
    await startWorker(foreign);
    await expect(foreign.apply("outer", { n: 5 })).rejects.toThrow(
      `ctx.apply: this task is not in the tasks of queue "${foreign.name}"`,
    );
  });
});

describe("the wait of apply", () => {
  it("D-65, T-17: waitTimeout ends only the wait; the job keeps its own timeout", async () => {
    const queue = open();
    const error = await queue
      .apply("double", { n: 1 }, { key: "nobody-works", waitTimeout: 0.05 })
      .catch((reason) => reason);
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error).toMatchObject({ name: "TimeoutError", code: "timeout", keys: ["nobody-works"] });
    expect(error.message).toBe(
      "Job nobody-works has not ended within 0.05 s. Only the wait has ended; no job was stopped. " +
        "Is a worker running? Wait longer, or read the job later with queue.job(key)",
    );
    expect(await queue.job("nobody-works")).toMatchObject({ status: "queued", timeout: 10 });
  });

  it.each([-1, Number.NaN, "5"])(
    "Q-5: a waitTimeout of %p is refused, and nothing is stored",
    async (wait) => {
      const queue = open();
      await expect(queue.apply("double", { n: 1 }, { waitTimeout: wait as number })).rejects.toThrow(
        `apply("double"): waitTimeout must be null or seconds >= 0 (0 and null: no limit), got ${wait}`,
      );
      expect(await queue.count("incomplete")).toBe(0);
    },
  );

  it("Q-5: apply refuses the client of a transaction, because workers cannot see the job before the commit", async () => {
    const options = { client: { query: async () => ({ rows: [] }) } };
    await expect(open().apply("double", { n: 1 }, options as object)).rejects.toThrow(
      'apply("double"): client cannot be combined with waiting',
    );
  });

  it("Q-5: a signal ends only the wait, with its own reason; a signal that has already fired stores nothing", async () => {
    const queue = open();
    const gone = new AbortController();
    const signal = gone.signal;
    const applied = queue.apply("double", { n: 1 }, { key: "unwatched", signal });
    const mapped = queue.map("double", [{ n: 1 }, { n: 2 }], {
      each: ({ n }) => ({ key: `unwatched-${n}` }),
      signal,
    });
    await isStored("unwatched");
    await isStored("unwatched-2");
    gone.abort(new Error("the client hung up"));
    await expect(applied).rejects.toThrow("the client hung up");
    await expect(mapped).rejects.toThrow("the client hung up");
    await expect(queue.apply("double", { n: 1 }, { key: "too-late", signal })).rejects.toThrow("hung up");
    expect((await queue.jobs(["unwatched", "too-late"])).map((job) => job?.status ?? null)).toEqual([
      "queued",
      null,
    ]);
  });

  it("W-23: a task that waits in ctx.apply ends at once when it is interrupted", async () => {
    const waits = {
      inner: async () => {},
      outer: async (ctx: Context): Promise<null> => ctx.apply(waits.inner),
    };
    const queue = openQueue(database, waits, { concurrency: 1, cancellationHardDeadline: 60 });
    await startWorker(queue);
    // The worker has one slot: the inner job cannot start before the outer job ends.
    const outer = queue.apply("outer", undefined, { timeout: 0.2, retries: 1 });
    await expect(outer).rejects.toThrow("TimeoutError: timed out after 0.2 s");
    const inner = (await queue.list()).find((job) => job.function === "inner");
    expect(await inner?.refresh(0)).toMatchObject({ function: "inner", status: "complete" });
  });

  itWithPush(
    "D-67: reads that fail for half a minute end the wait with their error; a shorter outage does not",
    async () => {
      const queue = open();
      const clock = stepClock();
      try {
        const refused = Object.assign(new Error("permission denied for table saq_jobs"), { code: "42501" });
        const reads = readsOf(queue).mockRejectedValueOnce(refused);
        const applied = queue.apply("double", { n: 1 }, { key: "blind" });
        await isStored("blind");
        clock.pass(1);
        await database.stored.publish(queue.name, "blind", "complete");
        await until(async () => reads.mock.calls.length >= 2);
        reads.mockRejectedValue(refused);
        await database.stored.publish(queue.name, "blind", "complete");
        await until(async () => reads.mock.calls.length >= 4);
        clock.pass(31);
        await expect(applied).rejects.toBe(refused);
      } finally {
        jest.restoreAllMocks();
      }
    },
  );

  it("D-66: an awaited job with ttl -1 gets a ttl that covers the wait; any other ttl of the call is kept", async () => {
    const queue = openQueue(database, tasks, { defaults: { ttl: -1 } });
    await startWorker(queue);
    expect(await queue.apply("double", { n: 3 }, { key: "short" })).toBe(6);
    expect((await queue.job("short"))?.ttl).toBe(600);
    expect(await queue.apply("double", { n: 3 }, { key: "limited", ttl: -1, waitTimeout: 90.5 })).toBe(6);
    expect((await queue.job("limited"))?.ttl).toBe(91);
    expect(await queue.apply("double", { n: 3 }, { key: "own", ttl: 5 })).toBe(6);
    expect((await queue.job("own"))?.ttl).toBe(5);
  });

  it("D-66: apply rejects with JobGoneError when the job's row disappears, and does not return null", async () => {
    const queue = open();
    const applied = queue.apply("double", { n: 1 }, { key: "vanishes" });
    const rejected = expect(applied).rejects.toThrow(JobGoneError);
    await isStored("vanishes");
    await deleteRow(database, "vanishes");
    await rejected;
  });

  it("D-3: apply rejects with poison_document when the job's document becomes unreadable", async () => {
    const queue = open();
    const applied = queue.apply("double", { n: 1 }, { key: "spoilt" });
    await isStored("spoilt");
    const spoil = editRow(database, "spoilt", { status: "complete", document: "{" });
    // Attached at once: a poll may find the changed row before the update returns.
    await expect(applied).rejects.toMatchObject({
      code: "poison_document",
      // On Redis, the status is in the document alone.
      message: expect.stringMatching(
        onRedis
          ? /^Job spoilt exists \(\w+\), but its stored document is not a SAQ job/
          : /^Job spoilt exists \(complete\), but its stored document is not a SAQ job/,
      ),
    });
    await spoil;
  });

  it("D-67: an end without a notification (a Python worker) is found by polling at growing intervals", async () => {
    const queue = open();
    await queue.connect();
    const reads = readsOf(queue);
    const times: number[] = [];
    reads.mockImplementation((keys) => {
      times.push(performance.now());
      return Object.getPrototypeOf(queue.broker).jobs.call(queue.broker, keys);
    });
    const applied = queue.apply("double", { n: 1 }, { key: "silent" });
    await until(async () => times.length >= 6);
    await endSilently("silent", "complete", { result: 2 });
    expect(await applied).toBe(2);
    const gaps = times.slice(1).map((time, index) => time - (times[index] as number));
    expect(gaps.at(0)).toBeGreaterThan(60);
    expect(gaps.at(3)).toBeGreaterThan(200);
    reads.mockClear();
    await new Promise((resolve) => setTimeout(resolve, 120));
    // No caller waits any more, so nothing polls.
    expect(reads).not.toHaveBeenCalled();
  });

  it("D-67: behind a transaction pooler (poll mode) results are found without LISTEN", async () => {
    const queue = open({ pollInterval: 0.1 });
    await startWorker(queue);
    expect(await queue.apply("double", { n: 4 })).toBe(8);
  });

  itWithProxy(
    "D-69: an end while the LISTEN connection is lost is found after the reconnect, or by polling",
    async () => {
      const proxy = await openProxy(database);
      const queue = openQueue(proxy, tasks);
      const applied = [1, 2].map((n) => queue.apply("double", { n }, { key: `cut-${n}` }));
      await isStored("cut-1");
      await isStored("cut-2");
      proxy.refuse();
      await endSilently("cut-1", "complete", { result: 2 });
      proxy.admit();
      expect(await applied[0]).toBe(2);
      const worker = openQueue(database, tasks, { name: queue.name });
      await startWorker(worker);
      expect(await applied[1]).toBe(4);
      expect(await queue.apply("double", { n: 5 })).toBe(10);
    },
  );

  it("V-5.9: apply keeps waiting for a job that is queued again before its row is read", async () => {
    const queue = open();
    const applied = queue.apply("double", { n: 1 }, { key: "twice" });
    await isStored("twice");
    const [first] = await claim(queue);
    if (!first) throw new Error("claimed");
    await settle(queue, settlement(first, "queued", {}, { awaited: true }));
    await startWorker(queue);
    expect(await applied).toBe(2);
  });

  it("Q-15: close rejects the waiting calls, and the error says that the job goes on", async () => {
    const queue = open();
    const applied = queue.apply("double", { n: 1 }, { key: "left" });
    const refused = expect(applied).rejects.toMatchObject({
      code: "queue_closed",
      message:
        "The queue was closed during the wait for job left. The job goes on, and its result is kept for its ttl",
    });
    await isStored("left");
    await queue.close();
    await refused;
    await expect(queue.apply("double", { n: 1 })).rejects.toMatchObject({ code: "queue_closed" });
    expect(await rowOf(database, "left")).toMatchObject({ status: "queued" });
  });
});

describe("refresh", () => {
  it("J-17, T-88: refresh(until) waits for the end (0: without limit) and reads every field", async () => {
    const queue = open();
    const job = await queue.enqueue("double", { n: 3 });
    await expect(job.refresh(0.01)).rejects.toThrow(TimeoutError);
    expect(job.status).toBe("queued");
    const refreshed = job.refresh(0);
    await startWorker(queue);
    expect(await refreshed).toBe(job);
    expect(job).toMatchObject({ status: "complete", result: 6, attempts: 1 });
    expect(await job.refresh(0)).toBe(job);
    await expect(job.refresh(-1)).rejects.toThrow("refresh: until must be null or seconds >= 0");
  });

  it("D-69: refresh(0) rejects with JobGoneError when the row disappears, and does not wait forever", async () => {
    const queue = open();
    const job = await queue.enqueue("double", { n: 3 });
    const refreshed = expect(job.refresh(0)).rejects.toThrow(JobGoneError);
    await deleteRow(database, job.key);
    await refreshed;
    await expect(job.refresh(0)).rejects.toThrow(JobGoneError);
  });

  it("D-3: refresh rejects with poison_document, not with JobGoneError, when the document is unreadable", async () => {
    const job = await open().enqueue("double", { n: 3 });
    await editRow(database, job.key, { document: "[]" });
    await expect(job.refresh()).rejects.toMatchObject({
      code: "poison_document",
      message:
        // On Redis, an unreadable document has no status.
        `Job ${job.key} exists (${onRedis ? "failed" : "queued"}), but its stored document is not a SAQ job of this queue; ` +
        "the document is kept unchanged",
    });
  });
});
