/** Jobs from their enqueue to their recorded end, with a worker in this process. */
import { beforeAll, describe, expect, it } from "@jest/globals";
import type { AnyTask, Context } from "../../../templates/backend/saq/tasks/task.js";
import { pythonComplaints } from "../support/golden-documents.js";
import { insertRow, openQueue, rowOf, serverSeconds, startWorker, useDatabase } from "../support/scenario.js";

const database = useDatabase();

beforeAll(async () => {
  const queue = openQueue(database, {});
  await queue.connect();
  await queue.close();
});

/** The worker looks for aborts every 50 ms, so that no test waits a second for it. */
const quick = { timers: { abort: 0.05 } };

const nowSeconds = () => serverSeconds(database);

/** A promise that resolves when the test calls `open`. */
function gate() {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

/** Runs one job of one task to its end. */
async function runOne(given: AnyTask, options: object = {}, payload: object = {}) {
  const queue = openQueue(database, { given } as Record<string, AnyTask>, quick);
  const { ended, worker, log } = await startWorker(queue);
  const job = await queue.enqueue("given", payload, options);
  const message = await ended(job.key);
  return { queue, job, message, worker, log, ended, row: await rowOf(database, job.key) };
}

describe("the value that a task returns", () => {
  it("V-5.7: becomes the result of the job", async () => {
    const { job, row, message, worker } = await runOne(async () => ({ x: [1, null, "é"] }), { retries: 2 });
    expect(message).toBe("Finished given");
    expect(row).toMatchObject({ status: "complete", scheduled: 0 });
    expect(Math.abs(Number(row?.expire_at) - (await nowSeconds()) - 600)).toBeLessThanOrEqual(1);
    expect(await job.refresh()).toMatchObject({
      status: "complete",
      result: { x: [1, null, "é"] },
      error: null,
      progress: 1,
      attempts: 1,
      workerId: worker.workerId,
    });
    expect(job.completed).toBeGreaterThanOrEqual(job.started);
    expect(pythonComplaints(row?.text ?? "", job.queueName)).toEqual([]);
    expect(worker.stats.complete).toBe(1);
  });

  it("may contain U+FFFD, as the payload and the error of an attempt may", async () => {
    const text = "bad bytes: \uFFFD";
    const task = async (ctx: Context, payload: { text: string }) => {
      if (ctx.job.attempts === 1) throw new Error(text);
      return payload.text;
    };
    const { job, ended } = await runOne(task as AnyTask, { retries: 2 }, { text });
    expect(await ended(job.key, 2)).toBe("Finished given");
    expect(await job.refresh()).toMatchObject({ status: "complete", result: text, kwargs: { text } });
  });

  it.each<[string, unknown, unknown]>([
    ["undefined", undefined, null],
    ["null", null, null],
    ["a Date", new Date(0), "1970-01-01T00:00:00.000Z"],
    ["NaN", Number.NaN, null],
    ["a text with NUL and a lone surrogate", "\0 \ud800", "\0 \ud800"],
    ["false", false, false],
    ["an empty text", "", ""],
    ["zero", 0, 0],
    ["an object with toJSON", { toJSON: () => ({ own: 1 }) }, { own: 1 }],
  ])("V-5.7: %s becomes the result in its JSON form", async (_, value, result) => {
    const { job } = await runOne(() => value);
    expect(await job.refresh()).toMatchObject({ status: "complete", result, error: null });
  });

  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  it.each<[string, unknown, RegExp]>([
    ["a BigInt", 1n, /BigInt/],
    ["an object that contains itself", cycle, /circular/],
    ["a function", () => 1, /a function has no JSON form/],
    ["a symbol", Symbol("s"), /a symbol has no JSON form/],
  ])("D-40: %s fails the job with a clear error, and the job is not retried", async (_, value, why) => {
    const { job, message, row } = await runOne(() => value, { retries: 5 });
    expect(message).toBe("Failed given");
    expect(row?.status).toBe("failed");
    const { error, attempts } = await job.refresh();
    expect(error).toMatch(/^The result of task "given" cannot be stored as JSON: /);
    expect(error).toMatch(why);
    expect(attempts).toBe(1);
  });
});

describe("a task that throws", () => {
  it("V-6, J-37, T-10: is retried while attempts are left, then fails with its stack as the error", async () => {
    let runs = 0;
    const queue = openQueue(database, {
      given: () => {
        throw new TypeError(`oops ${++runs}`);
      },
    });
    const { ended, worker } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 3, meta: { m: 1 } });
    expect(await ended(job.key)).toBe("Retrying given");
    expect(await ended(job.key, 3)).toBe("Failed given");
    expect(await job.refresh()).toMatchObject({
      status: "failed",
      attempts: 3,
      result: null,
      meta: { m: 1 },
    });
    expect(job.error).toMatch(/^TypeError: oops 3\n\s+at .*run\.test\.ts/);
    expect(worker.stats).toMatchObject({ complete: 0, failed: 1, retried: 2 });
    // D-83: the row is kept for failedTtl. Only the column expire_at says so: the job's ttl stays as it was.
    const row = await rowOf(database, job.key);
    expect(Math.abs(Number(row?.expire_at) - (await nowSeconds()) - 604_800)).toBeLessThanOrEqual(1);
    expect(job.ttl).toBe(600);
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
  });

  it.each<[unknown, string]>([
    ["a text", "A task threw something that is not an Error: a text"],
    [{ code: 7 }, "A task threw something that is not an Error: { code: 7 }"],
    [undefined, "A task threw something that is not an Error: undefined"],
    [1n, "A task threw something that is not an Error: 1n"],
  ])("fails with a text that describes the thrown value %p", async (thrown, text) => {
    const { job } = await runOne(() => {
      throw thrown;
    });
    expect(await job.refresh()).toMatchObject({ status: "failed", error: text });
  });

  it("D-30: is retried at the next whole second after a retry delay of less than a second", async () => {
    let runs = 0;
    const startedAt: number[] = [];
    const queue = openQueue(database, {
      given: async (ctx: Context) => {
        startedAt.push(ctx.job.started);
        if (++runs === 1) throw new Error("boom");
      },
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 2, retryDelay: 0.2 });
    await ended(job.key);
    const { scheduled = 0 } = (await rowOf(database, job.key)) ?? {};
    expect(Number.isInteger(scheduled)).toBe(true);
    await ended(job.key, 2);
    const [first = 0, second = 0] = startedAt;
    expect(second - first).toBeGreaterThanOrEqual(200);
    // Not before the due time, and soon after it: the worker looks for due jobs at every whole second.
    expect(second).toBeGreaterThanOrEqual(scheduled * 1_000);
    expect(second).toBeLessThan(scheduled * 1_000 + 10_000);
    expect((await job.refresh()).status).toBe("complete");
  });

  it("D-41: an unknown task fails with an error that names it and the known tasks", async () => {
    const queue = openQueue(database, { one: () => 1, two: () => 2 });
    const { ended } = await startWorker(queue);
    const document = `{"function": "three", "queue": "${queue.name}", "key": "unknown-task", "status": "queued"}`;
    await insertRow(database, { key: "unknown-task", queue: queue.name, document });
    await database.stored.announce(queue.name);
    expect(await ended("unknown-task")).toBe("Failed three");
    expect((await queue.job("unknown-task"))?.error).toMatch(
      /^Error: Unknown task "three" \(registered: one, two\)\n/,
    );
  });
});

describe("the row of a finished job", () => {
  it.each([
    ["J-16: is kept for ever with ttl 0", () => 1, 0, "complete", null],
    ["D-83: is kept for ever with ttl 0 if the job failed", null, 0, "failed", null],
  ])("%s", async (_, run, ttl, status, expire_at) => {
    const { row } = await runOne(run ?? (() => Promise.reject(new Error("boom"))), { ttl });
    expect(row).toMatchObject({ status, expire_at });
  });

  it.each([
    ["complete", () => 1],
    ["failed", () => Promise.reject(new Error("boom"))],
  ])("J-16: is deleted at once with ttl -1 (%s)", async (_, run) => {
    const { row } = await runOne(run, { ttl: -1 });
    expect(row).toBeUndefined();
  });
});

describe("an attempt that is interrupted", () => {
  it("V-6: gets a TimeoutError by its signal at its timeout, fails with it, and is counted", async () => {
    const reasons: string[] = [];
    const given = async ({ signal }: Context) => {
      await new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          reasons.push((signal.reason as Error).name);
          reject(signal.reason);
        });
      });
    };
    const { job, ended } = await runOne(given, { timeout: 0.05, retries: 2 });
    await ended(job.key, 2);
    expect(reasons).toEqual(["TimeoutError", "TimeoutError"]);
    expect(await job.refresh()).toMatchObject({ status: "failed", attempts: 2 });
    expect(job.error).toMatch(/^TimeoutError: timed out after 0.05 s/);
  });

  it.each([
    ["returns", async () => "a result"],
    ["throws", () => Promise.reject(new Error("late"))],
  ])("D-25, W-15: ends as aborted after an abort, although its task %s", async (_, end) => {
    const started = gate();
    const queue = openQueue(
      database,
      {
        given: async ({ signal }: Context) => {
          started.open();
          await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
          return end();
        },
      },
      quick,
    );
    const { ended, worker } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 5, ttl: 60 });
    await started.opened;
    expect(await job.abort("nope")).toBe("aborting");
    expect(await ended(job.key)).toBe("Aborted given");
    expect(await job.refresh()).toMatchObject({
      status: "aborted",
      error: "nope",
      result: null,
      attempts: 1,
    });
    expect(worker.stats).toMatchObject({ aborted: 1, retried: 0, failed: 0, complete: 0 });
  });

  it("D-25: ends as aborted even if its task ends before the worker notices the abort", async () => {
    const [started, goOn] = [gate(), gate()];
    const queue = openQueue(
      database,
      {
        given: async () => {
          started.open();
          await goOn.opened;
          return "too late";
        },
      },
      { timers: { abort: 60 } },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given");
    await started.opened;
    await job.abort("nope");
    goOn.open();
    expect(await ended(job.key)).toBe("Aborted given");
    expect(await job.refresh()).toMatchObject({ status: "aborted", error: "nope", result: null });
  });
});
