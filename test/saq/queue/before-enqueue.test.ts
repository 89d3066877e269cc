/** Hooks before an enqueue, and enqueues of job objects. */
import { describe, expect, it } from "@jest/globals";
import { InvalidJobError, InvalidPayloadError } from "../../../templates/backend/saq/errors.js";
import { type Context, task } from "../../../templates/backend/saq/tasks/task.js";
import type { StandardSchema } from "../../../templates/backend/saq/tasks/validation.js";
import { claim, openQueue, rowOf, startWorker, useDatabase } from "../support/scenario.js";
import { itOnTables, possible } from "../support/test-broker.js";

const database = useDatabase();

/** A schema that requires a number `n` and validates asynchronously. */
const numbered: StandardSchema<{ n: number }> = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: async (value) =>
      typeof (value as { n?: unknown }).n === "number"
        ? { value: value as { n: number } }
        : { issues: [{ message: "Expected a number", path: ["n"] }] },
  },
};
const tasks = {
  echo: async (ctx: Context) => ctx.job.meta,
  numbered: task({ input: numbered, run: async (_ctx, { n }) => n }),
  relay: async (ctx: Context) => {
    const job = await ctx.enqueue(tasks.echo, undefined, { key: `relayed-by-${ctx.job.key}` });
    return job?.id;
  },
};
const open = (options: object = {}) => openQueue(database, tasks, options);

describe("before-enqueue hooks", () => {
  it("Q-12, T-20, D-62: are called while they are registered; each registration is removed separately", async () => {
    const queue = open();
    const seen: string[] = [];
    const bound = { name: "bound", hook: (job: { key: string }) => seen.push(job.key) };
    const [first, second] = [
      queue.registerBeforeEnqueue(bound.hook),
      queue.registerBeforeEnqueue(bound.hook),
    ];
    await queue.enqueue("echo", undefined, { key: "a" });
    first();
    first();
    await queue.enqueue("echo", undefined, { key: "b" });
    second();
    await queue.enqueue("echo", undefined, { key: "c" });
    expect(seen).toEqual(["a", "a", "b"]);
    expect(() => queue.registerBeforeEnqueue(undefined as never)).toThrow(
      "registerBeforeEnqueue takes a function (job) => ..., got undefined",
    );
  });

  it("Q-4, Q-12: are awaited in order and see status and time; their changes are stored and returned", async () => {
    const queue = open();
    const order: string[] = [];
    queue.registerBeforeEnqueue(async (job) => {
      order.push("first begins");
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect(job).toMatchObject({ status: "queued", function: "echo", queueName: queue.name });
      expect(job.queued).toBeGreaterThan(1e12);
      job.meta.trace = 7;
      job.kwargs = { ...job.kwargs, added: true };
      order.push("first ends");
    });
    const placed = possible({ priority: 5, groupKey: "g" });
    queue.registerBeforeEnqueue((job) => {
      order.push("second");
      Object.assign(job, { ...placed, timeout: 33, retries: 4, scheduled: 4e9, ttl: 0 });
    });
    const meta = { mine: 1 };
    const payload = { given: true };
    const job = await queue.enqueue("echo", payload as never, { key: "changed", meta });
    const changed = {
      kwargs: { given: true, added: true },
      meta: { mine: 1, trace: 7 },
      ...placed,
      timeout: 33,
      retries: 4,
      scheduled: 4e9,
      ttl: 0,
    };
    expect(job).toMatchObject(changed);
    expect(await queue.job("changed")).toMatchObject(changed);
    expect(await rowOf(database, "changed")).toMatchObject({
      priority: placed.priority ?? 0,
      group_key: placed.groupKey ?? null,
      scheduled: 4e9,
    });
    expect(order).toEqual(["first begins", "first ends", "second"]);
    // The caller's own objects are not changed.
    expect([meta, payload]).toEqual([{ mine: 1 }, { given: true }]);
  });

  it("Q-12, T-63: run for every way to enqueue, also for jobs that are then refused", async () => {
    const queue = open();
    const seen: string[] = [];
    queue.registerBeforeEnqueue((job) => {
      seen.push(job.key);
      job.meta.trace = "t";
    });
    await startWorker(queue);
    await queue.enqueueMany([
      { task: "echo", key: "m1", scheduled: 4e9 },
      { task: "echo", key: "m2", scheduled: 4e9 },
    ]);
    await queue.enqueueDetailed("echo", undefined, { key: "m1" });
    // `apply` sets `meta.awaited` after the hooks have run, so that no hook can remove it.
    expect(await queue.apply("echo", undefined, { key: "ap" })).toEqual({ trace: "t", awaited: true });
    await queue.map("echo", [undefined], { key: "mp" });
    expect(await queue.apply("relay", undefined, { key: "r" })).toBe("relayed-by-r");
    expect(seen).toEqual(["m1", "m2", "m1", "ap", "mp", "r", "relayed-by-r"]);
    expect((await queue.job("relayed-by-r"))?.meta).toEqual({ trace: "t" });
  });

  it("Q-12: a hook that throws stops the enqueue; enqueueMany then stores none of its jobs", async () => {
    const queue = open();
    queue.registerBeforeEnqueue(async ({ key }) => {
      if (key === "bad") throw new Error("not this one");
    });
    await expect(queue.enqueue("echo", undefined, { key: "bad" })).rejects.toThrow("not this one");
    await expect(
      queue.enqueueMany([
        { task: "echo", key: "good" },
        { task: "echo", key: "bad" },
      ]),
    ).rejects.toThrow("not this one");
    expect(await queue.jobs(["good", "bad"])).toEqual([null, null]);
  });

  it.each([
    ["key", { key: "other" }, 'it set key to "other" (hooks may set: kwargs, timeout'],
    ["status", { status: "complete" }, 'it set status to "complete"'],
    ["attempts", { attempts: 3 }, "it set attempts to 3"],
    [
      "priority",
      { priority: 1e6 },
      'change to the job of "echo": priority must be a whole number of -32768 to 32767, got 1000000',
    ],
    ["retries", { retries: -1 }, "retries must be a whole number >= 0"],
    ["scheduled", { scheduled: Date.now() }, "(milliseconds? divide by 1000)"],
    ["groupKey", { groupKey: 5 }, "groupKey must be a text or null, got 5"],
    ["meta", { meta: null }, "meta must be an object, got null"],
    ["kwargs", { kwargs: [1] }, 'The payload of "echo" must be an object of named values, got an array'],
  ])("Q-12, D-61: an invalid %s of a hook is refused, and nothing is stored", async (_, change, message) => {
    const queue = open();
    queue.registerBeforeEnqueue((job) => Object.assign(job, change));
    const enqueued = queue.enqueue("echo");
    await expect(enqueued).rejects.toThrow(InvalidJobError);
    await expect(enqueued).rejects.toThrow(message);
    expect(await queue.count("incomplete")).toBe(0);
  });

  it("Q-12: the task's schema refuses a payload that a hook made invalid", async () => {
    const queue = open();
    queue.registerBeforeEnqueue((job) => {
      if (job.kwargs?.n === 1) job.kwargs.n = "one";
    });
    await expect(queue.enqueue("numbered", { n: 1 })).rejects.toThrow(InvalidPayloadError);
    expect((await queue.enqueue("numbered", { n: 2 })).kwargs).toEqual({ n: 2 });
  });
});

describe("job objects", () => {
  it("T-2, T-83, J-19: a prepared job is new; enqueue sets status and time; a second enqueue returns null", async () => {
    const queue = open();
    const job = queue.prepare("numbered", { n: 1 }, { ...possible({ priority: 2 }), retries: 3 });
    expect(job).toMatchObject({ status: "new", queued: 0, kwargs: { n: 1 }, retries: 3 });
    expect(await queue.job(job.key)).toBeNull();
    expect(await queue.enqueue(job)).toBe(job);
    expect(job).toMatchObject({ status: "queued", queued: expect.any(Number) });
    expect(await queue.job(job.key)).toEqual(job);
    expect(await queue.enqueue(job)).toBeNull();
    expect(await queue.count("queued")).toBe(1);
    await queue.enqueue(queue.prepare("numbered", { n: 2 }));
    expect(await queue.count("queued")).toBe(2);
  });

  itOnTables(
    "Q-16: a prepared job is stored in the caller's transaction by job.enqueue; prepare itself refuses a client",
    async () => {
      const queue = open();
      await queue.connect();
      const client = await database.connect();
      expect(() => queue.prepare("numbered", { n: 1 }, { client } as object)).toThrow(
        new InvalidJobError(
          'prepare("numbered"): client has no effect here, because the job is not stored yet; ' +
            "pass it to job.enqueue({ client })",
        ),
      );
      const job = queue.prepare("numbered", { n: 1 });
      await client.query("begin");
      expect(await job.enqueue({ client })).toBe(job);
      expect(job.status).toBe("queued");
      expect(await queue.job(job.key)).toBeNull();
      await client.query("commit");
      expect(await queue.job(job.key)).toEqual(job);
      const undone = queue.prepare("numbered", { n: 2 });
      await client.query("begin");
      await undone.enqueue({ client });
      await client.query("rollback");
      expect(await queue.job(undone.key)).toBeNull();
    },
  );

  it("D-32: a refused enqueue leaves the job object as it was", async () => {
    const queue = open();
    const job = await queue.enqueue("numbered", { n: 1 }, { meta: { m: 1 } });
    await claim(queue);
    const before = { ...job };
    const overrides = { ...possible({ priority: 9 }), meta: {} };
    expect(await queue.enqueue(job, { payload: { n: 2 }, ...overrides })).toBeNull();
    expect({ ...job }).toEqual(before);
  });

  it("J-19: job.enqueue() refreshes the job object when its key is taken", async () => {
    const queue = open();
    const job = await queue.enqueue("numbered", { n: 1 });
    await claim(queue);
    expect(await job.enqueue()).toBe(job);
    expect(job).toMatchObject({ status: "active", attempts: 1 });
  });

  it("Q-3, D-61: enqueue of a finished job resets it and applies the overrides; a payload is replaced as a whole", async () => {
    const queue = open();
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("numbered", { n: 1 }, { meta: { m: 1, lost: 2 }, timeout: 7 });
    await ended(job.key);
    await job.refresh();
    expect(job).toMatchObject({ status: "complete", result: 1, attempts: 1 });
    expect(await queue.enqueue(job, { payload: { n: 5 }, retries: 2 })).toBe(job);
    expect(job).toMatchObject({
      status: "queued",
      kwargs: { n: 5 },
      attempts: 0,
      result: null,
      completed: 0,
      retries: 2,
      timeout: 7,
      meta: { m: 1 },
    });
    await ended(job.key, 2);
    expect((await job.refresh()).result).toBe(5);
  });

  it("T-83, J-19, Q-3: a job of another queue is refused before anything is written", async () => {
    const [queue, other] = [open(), open()];
    const job = other.prepare("numbered", { n: 1 });
    await expect(queue.enqueue(job)).rejects.toThrow(
      `Job ${job.key} belongs to queue "${other.name}" and cannot be enqueued in "${queue.name}"`,
    );
    expect(await rowOf(database, job.key).catch(() => undefined)).toBeUndefined();
  });

  it("D-61: fields of the engine are refused as overrides", async () => {
    const queue = open();
    const job = queue.prepare("numbered", { n: 1 });
    await expect(queue.enqueue(job, { status: "complete", attempts: 9 } as object)).rejects.toThrow(
      'enqueue("numbered"): there is no option "status"',
    );
  });
});
