/** The helpers for users' own tests, used here as users would use them. */
import { AssertionError } from "node:assert";
import { describe, expect, it } from "@jest/globals";
import * as z from "zod";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import {
  InvalidJobError,
  InvalidPayloadError,
  InvalidResultError,
} from "../../../templates/backend/saq/errors.js";
import { cronJob, NoRetry } from "../../../templates/backend/saq/index.js";
import { type Context, task } from "../../../templates/backend/saq/tasks/task.js";
import { drain, enqueued, expectEnqueued, runTask } from "../../../templates/backend/saq/testing/index.js";
import { openQueue, useDatabase } from "../support/scenario.js";
import { itNeeds, possible } from "../support/test-broker.js";

const database = useDatabase();

const greet = async (ctx: Context, { name }: { name: string }) => {
  ctx.log.info({ name }, "greeting");
  await ctx.job.update({ progress: 0.5, meta: { half: true } });
  return { greeting: `Hello ${name}`, at: new Date(0), nothing: undefined };
};
const count = task({
  input: z.object({ n: z.string().transform(Number) }),
  output: z.object({ n: z.number().max(9).transform(String) }),
  run: async (_ctx, { n }) => ({ n: n + 1 }),
});
const chain = async (ctx: Context, { left }: { left: number }): Promise<number> => {
  if (left > 0) await ctx.enqueue(chain, { left: left - 1 }, possible({ priority: 2 }));
  return left;
};
const poll = async (ctx: Context, { seconds }: { seconds: number }): Promise<string> => {
  throw ctx.snooze(seconds);
};
const boom = task({
  retries: 2,
  run: async () => {
    throw new TypeError("boom");
  },
});

describe("runTask", () => {
  it("returns the result as it is stored, and the task's updates, enqueued jobs and log", async () => {
    expect(await runTask(greet, { name: "Ada" })).toEqual({
      result: { greeting: "Hello Ada", at: "1970-01-01T00:00:00.000Z" },
      updates: [{ progress: 0.5, meta: { half: true } }],
      enqueued: [],
      log: [
        {
          level: "info",
          message: "greeting",
          fields: { job: expect.any(String), task: "greet", name: "Ada" },
        },
      ],
    });
  });

  it("validates payload and result as a real run does", async () => {
    expect((await runTask(count, { n: "4" })).result).toEqual({ n: "5" });
    await expect(runTask(count, { n: 4 as unknown as string })).rejects.toThrow(InvalidPayloadError);
    await expect(runTask(count, { n: "9" })).rejects.toThrow(InvalidResultError);
    const dated = async (_ctx: Context, { at }: { at: Date }) => typeof at;
    expect((await runTask(dated, { at: new Date(0) as unknown as string })).result).toBe("string");
    await expect(runTask(async () => 1n)).rejects.toThrow(InvalidResultError);
    await expect(runTask(greet, 7 as unknown as { name: string })).rejects.toThrow(InvalidJobError);
  });

  it("returns the jobs that the task enqueued, and runs those that it waits for", async () => {
    const parent = async (ctx: Context) => {
      await ctx.enqueue(chain, { left: 3 }, { key: "c", scheduled: inSeconds(5) });
      return (await ctx.apply(count, { n: "1" })).n;
    };
    const { result, enqueued: jobs } = await runTask(parent);
    expect(result).toBe("2");
    expect(jobs).toEqual([
      { task: chain, payload: { left: 3 }, options: { key: "c", scheduled: inSeconds(5) } },
      { task: count, payload: { n: "1" }, options: {} },
    ]);
    const bad = async (ctx: Context) => ctx.enqueue(count, { n: 5 as unknown as string });
    await expect(runTask(bad)).rejects.toThrow(InvalidPayloadError);
  });

  it("passes the test's state, job fields and time to the task", async () => {
    const looking = async (ctx: Context<{ db: { name: string } }>, { id }: { id: number }) => ({
      db: ctx.db.name,
      id,
      attempts: ctx.job.attempts,
      started: ctx.job.started,
      timeout: ctx.job.timeout,
      tenant: ctx.job.meta.tenant,
    });
    const now = new Date("2026-01-02T03:04:05Z");
    const { result } = await runTask(
      looking,
      { id: 1 },
      { state: { db: { name: "test" } }, job: { attempts: 3, meta: { tenant: 7 }, timeout: 60 }, now },
    );
    expect(result).toEqual({
      db: "test",
      id: 1,
      attempts: 3,
      started: now.getTime(),
      timeout: 60,
      tenant: 7,
    });
    // @ts-expect-error the task needs ctx.db
    await expect(runTask(looking, { id: 1 })).rejects.toThrow(TypeError);
  });

  it("throws the task's error, and ends the task at its timeout or at the test's signal", async () => {
    await expect(runTask(boom)).rejects.toThrow(new TypeError("boom"));
    const waiting = async (ctx: Context) => {
      ctx.signal.throwIfAborted();
      await new Promise((_, reject) => ctx.signal.addEventListener("abort", () => reject(ctx.signal.reason)));
    };
    await expect(runTask(waiting, undefined, { job: { timeout: 0.02 } })).rejects.toThrow(
      "timed out after 0.02 s",
    );
    const controller = new AbortController();
    const aborted = runTask(waiting, undefined, { signal: controller.signal });
    controller.abort();
    await expect(aborted).rejects.toThrow("aborted by the test's signal");
    await expect(runTask(waiting, undefined, { signal: AbortSignal.abort() })).rejects.toThrow("aborted");
  });

  it("throws a NoRetry as it is, and what ctx.snooze returns", async () => {
    const refuses = async () => {
      throw new NoRetry("refused");
    };
    await expect(runTask(refuses)).rejects.toThrow(new NoRetry("refused"));
    await expect(runTask(poll, { seconds: 60 })).rejects.toMatchObject({ name: "Snooze", seconds: 60 });
    await expect(runTask(poll, { seconds: -1 })).rejects.toThrow(InvalidJobError);
    const mistaken = (ctx: Context) => ctx.snooze(60);
    await expect(runTask(mistaken)).rejects.toThrow("the task returned ctx.snooze(60), which has no effect");
    // The job that waits is not snoozed: in a real queue it would wait until the other one has ended.
    const parent = async (ctx: Context) => ctx.apply(poll, { seconds: 5 });
    const error = await runTask(parent).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      name: "Error",
      message: expect.stringContaining(
        'task "poll" threw ctx.snooze(5), and runTask runs each task only once',
      ),
    });
  });

  it("returns the value that the task passes to ctx.finish", async () => {
    const statements: string[] = [];
    const client = {
      query: async (text: string) => {
        statements.push(text);
        return { rows: [] };
      },
    };
    const finishing = async (ctx: Context) => {
      await client.query("insert");
      await ctx.finish({ done: true }, { client });
      return "ignored";
    };
    expect((await runTask(finishing)).result).toEqual({ done: true });
    expect(statements).toEqual(["insert"]);
  });
});

describe("drain", () => {
  it("runs all due jobs and the jobs that they enqueue, and returns the runs", async () => {
    const queue = openQueue(database, { chain, greet });
    await queue.enqueue("chain", { left: 3 });
    await queue.enqueue("greet", { name: "later" }, { scheduled: inSeconds(3_600) });
    const ran = await drain(queue);
    expect(ran.map(({ task: name, payload, result }) => [name, payload, result])).toEqual([
      ["chain", { left: 3 }, 3],
      ["chain", { left: 2 }, 2],
      ["chain", { left: 1 }, 1],
      ["chain", { left: 0 }, 0],
    ]);
    expect(await drain(queue)).toEqual([]);
    expect(await queue.counts()).toMatchObject({ complete: 4, scheduled: 1, queued: 0, active: 0 });
    expect(await queue.workers()).toEqual([]);
  });

  it("runs all jobs of a queue whose workers stop after one job", async () => {
    const options = { burst: true, dequeueTimeout: 0.01, maxBurstJobs: 1 };
    const queue = openQueue(database, { chain }, options);
    await queue.enqueue("chain", { left: 2 });
    expect(await drain(queue)).toHaveLength(3);
  });

  it("with `at`, runs the jobs that are due by that time, in the order of their times", async () => {
    const queue = openQueue(database, { greet }, { concurrency: 1 });
    const start = Math.ceil(Date.now() / 1_000);
    for (const [name, seconds] of [
      ["third", 7_200],
      ["first", 600],
      ["never", 90_000],
      ["second", 3_600],
    ] as const) {
      await queue.enqueue("greet", { name }, { scheduled: start + seconds });
    }
    const ran = await drain(queue, { at: new Date((start + 7_200) * 1_000) });
    expect(ran.map(({ payload }) => payload?.name)).toEqual(["first", "second", "third"]);
    expect(await queue.counts()).toMatchObject({ complete: 3, scheduled: 1 });
  });

  it("with `at`, runs the next attempts of jobs that wait for a retry", async () => {
    const flaky = task({
      retries: 3,
      retryDelay: 60,
      run: async (ctx: Context) => {
        if (ctx.job.attempts < 3) throw new Error("not yet");
      },
    });
    const queue = openQueue(database, { flaky });
    await queue.enqueue("flaky");
    expect(await drain(queue)).toEqual([expect.objectContaining({ status: "queued", attempts: 1 })]);
    const ran = await drain(queue, { at: new Date(Date.now() + 300_000) });
    expect(ran.map(({ status, attempts }) => [status, attempts])).toEqual([
      ["queued", 2],
      ["complete", 3],
    ]);
  });

  it("runs a snoozed job again as soon as it is due, and with `at` as often as it would by that time", async () => {
    const polls = (ctx: Context) => {
      if (ctx.job.meta.snoozes === undefined) throw ctx.snooze(0);
      if (ctx.job.meta.snoozes === 1) throw ctx.snooze(3_600);
      throw ctx.snooze(7_200);
    };
    const queue = openQueue(database, { polls });
    await queue.enqueue("polls");
    const snoozed = expect.objectContaining({ status: "queued", attempts: 0, error: null, result: null });
    expect(await drain(queue)).toEqual([snoozed, snoozed]);
    expect(await drain(queue)).toEqual([]);
    // After one hour, and then every two hours: after 1, 3 and 5 hours.
    const at = new Date(Date.now() + 5.5 * 3_600_000);
    expect(await drain(queue, { at })).toEqual([snoozed, snoozed, snoozed]);
    expect(await queue.counts()).toMatchObject({ scheduled: 1, queued: 0 });
  });

  it("throws the error of a job that failed for good by NoRetry", async () => {
    const refused = new NoRetry("refused");
    const refuses = task({
      retries: 5,
      run: () => {
        throw refused;
      },
    });
    const queue = openQueue(database, { refuses });
    await queue.enqueue("refuses");
    const error = (await drain(queue).catch((thrown: unknown) => thrown)) as Error;
    expect(error.message).toContain("drain: 1 of 1 runs failed");
    expect(error.cause).toBe(refused);
  });

  it("runs scheduled tasks by the real clock, not by `at`", async () => {
    const nightly = async () => "done";
    const queue = openQueue(
      database,
      { nightly },
      { scheduledTasks: [cronJob("nightly", { cron: "0 3 1 1 *" })] },
    );
    expect(await drain(queue, { at: new Date(Date.now() + 400 * 24 * 3_600_000) })).toEqual([]);
    await queue.schedules.run("nightly");
    expect(await drain(queue)).toEqual([expect.objectContaining({ task: "nightly", result: "done" })]);
  });

  it("throws an error that names a failed job and the reason, or returns the job with allowFailures", async () => {
    const queue = openQueue(database, { boom, greet });
    await queue.enqueue("greet", { name: "fine" });
    await queue.enqueue("boom", undefined, { key: "b1" });
    const error = (await drain(queue).catch((thrown: unknown) => thrown)) as Error;
    expect(error.message).toMatch(/^drain: 1 of 3 runs failed:\n {2}boom null \(b1\): TypeError: boom\n/);
    expect(error.cause).toMatchObject({ name: "TypeError", message: "boom" });
    await queue.enqueue("boom");
    const ran = await drain(queue, { allowFailures: true });
    expect(ran.map(({ status, attempts }) => [status, attempts])).toEqual([
      ["queued", 1],
      ["failed", 2],
    ]);
  });

  it("throws an error that lists the remaining jobs after its timeout", async () => {
    const stuck = async (ctx: Context) => {
      await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
    };
    const queue = openQueue(database, { stuck });
    await queue.enqueue("stuck", undefined, { key: "s1" });
    await expect(drain(queue, { timeout: 0.3 })).rejects.toThrow(
      /^drain: jobs are left after 0\.3 s and 0 runs: 1\n {2}stuck null \(s1\): active\n/,
    );
  });

  itNeeds(
    "priorities",
    "ignores parked jobs, keeps the queue's own hooks, and drains every queue of an application",
    async () => {
      const seen: string[] = [];
      const own = { afterProcess: (ctx: Context) => void seen.push(ctx.job.function) };
      const [one, other] = [openQueue(database, { greet }, own), openQueue(database, { chain })];
      one.registerBeforeEnqueue((job) => {
        job.meta = { ...job.meta, hooked: true };
      });
      await one.enqueue("greet", { name: "parked" }, { priority: -1 });
      await one.enqueue("greet", { name: "a" });
      await other.enqueue("chain", { left: 1 });
      const ran = await drain({ taskQueues: { all: () => [one, other] as never } });
      expect(ran.map(({ task: name }) => name).sort()).toEqual(["chain", "chain", "greet"]);
      expect(seen).toEqual(["greet"]);
      expect((await one.counts()).queued).toBe(1);
    },
  );
});

describe("enqueued and expectEnqueued", () => {
  it("find jobs by task and by members of their payload", async () => {
    const dated = async (
      _ctx: Context,
      _payload: { at: string; who: { name: string; age: number }; tags: string[] },
    ) => {};
    const queue = openQueue(database, { dated, greet });
    const at = new Date(0);
    const job = await queue.enqueue("dated", {
      at: at.toJSON(),
      who: { name: "Ada", age: 36 },
      tags: ["a", "b"],
    });
    await queue.enqueue("greet", { name: "Ada" });
    await queue.enqueue("greet", { name: "Bob" }, { scheduled: inSeconds(60) });
    const matches = [
      undefined,
      {},
      { who: { name: "Ada" } },
      { at: at as unknown as string, tags: ["a", "b"] },
      { tags: ["a", expect.any(String) as unknown as string] },
      ({ who }: { who: { age: number } }) => who.age > 35,
    ];
    for (const match of matches) expect((await expectEnqueued(queue, "dated", match)).key).toBe(job.key);
    const misses = [{ who: { name: "Bob" } }, { tags: ["a"] }, { who: { age: 37 } }, () => false];
    for (const match of misses) expect(await enqueued(queue, "dated", match)).toEqual([]);
    expect((await enqueued(queue, "greet")).map(({ kwargs }) => kwargs?.name)).toEqual(["Ada", "Bob"]);
    // @ts-expect-error the task's payload has no such member
    expect(await enqueued(queue, "greet", { nmae: "Ada" })).toEqual([]);
  });

  it("expectEnqueued throws an error that lists the queue's jobs if not exactly one job matches", async () => {
    const queue = openQueue(database, { greet });
    const failing = (match: { name: string }) =>
      expectEnqueued(queue, "greet", match).catch((error: unknown) => error) as Promise<AssertionError>;
    const empty = await failing({ name: "Ada" });
    expect(empty).toBeInstanceOf(AssertionError);
    expect(empty.operator).toBe("fail");
    expect(empty.message).toBe(
      `Expected one job of task "greet" with {"name":"Ada"} in queue "${queue.name}", found no job. The queue is empty.`,
    );
    await queue.enqueue("greet", { name: "Bob" }, { key: "bob1" });
    await queue.enqueue("greet", { name: "Bob" }, { key: "bob2" });
    expect((await failing({ name: "Ada" })).message).toMatch(
      /found no job\. Jobs in the queue: 2\n {2}greet \{"name":"Bob"\} \(queued, bob1\)\n {2}greet \{"name":"Bob"\} \(queued, bob2\)$/,
    );
    expect((await failing({ name: "Bob" })).message).toContain("found 2 jobs. Jobs in the queue: 2");
  });
});
