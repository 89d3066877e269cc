/** What a task receives, and when jobs run, with a worker in this process. */
import { setTimeout as sleep } from "node:timers/promises";
import { beforeAll, describe, expect, it } from "@jest/globals";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import { InvalidJobError } from "../../../templates/backend/saq/errors.js";
import { type Context, task } from "../../../templates/backend/saq/tasks/task.js";
import type { StandardSchema } from "../../../templates/backend/saq/tasks/validation.js";
import { documentIn, type Golden, goldenDocuments, pythonComplaints } from "../support/golden-documents.js";
import { insertRow, openQueue, rowOf, startWorker, useDatabase } from "../support/scenario.js";
import { itNeeds, itOnTables, onPoll, onRedis } from "../support/test-broker.js";

const database = useDatabase();

beforeAll(async () => {
  const queue = openQueue(database, {});
  await queue.connect();
  await queue.close();
});

/** A promise that resolves when the test calls `open`. */
function gate() {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

describe("a running task", () => {
  const width: StandardSchema<{ width: string }, { width: number }> = {
    "~standard": {
      version: 1,
      vendor: "test",
      // A schema may validate asynchronously.
      validate: async (value) => {
        const number = Number((value as { width?: unknown }).width);
        return Number.isNaN(number)
          ? { issues: [{ message: "must be a number", path: [{ key: "width" }] }] }
          : { value: { width: number } };
      },
    },
  };

  it("receives its payload, {} if there is none, or the output of its schema", async () => {
    const seen: unknown[] = [];
    const queue = openQueue(database, {
      plain: (_ctx: Context, payload?: object) => void seen.push(payload),
      sized: task({ input: width, run: (_ctx, payload) => void seen.push(payload) }),
    });
    const { ended } = await startWorker(queue);
    for (const job of [
      await queue.enqueue("plain", { a: { b: [1] } }),
      await queue.enqueue("plain"),
      await queue.enqueue("sized", { width: "5" }),
    ]) {
      await ended(job.key);
    }
    expect(seen).toEqual([{ a: { b: [1] } }, {}, { width: 5 }]);
  });

  it("fails if its schema refuses the payload that another program stored", async () => {
    const queue = openQueue(database, { sized: task({ input: width, run: () => "ran" }) });
    const document = `{"function": "sized", "kwargs": {"width": "x"}, "queue": "${queue.name}", "key": "bad-payload"}`;
    await queue.connect();
    await insertRow(database, { key: "bad-payload", queue: queue.name, document });
    const { ended } = await startWorker(queue);
    expect(await ended("bad-payload")).toBe("Failed sized");
    expect((await queue.job("bad-payload"))?.error).toMatch(
      /InvalidPayloadError: Invalid payload for task "sized": width: must be a number/,
    );
  });

  it("W-9: receives its job, queue, worker id and log, and can enqueue another task by its function", async () => {
    const child = (_ctx: Context, { n }: { n: number }) => n;
    let seen: unknown;
    const parent = async (ctx: Context) => {
      seen = [ctx.job.key, ctx.job.id, ctx.job.attempts, ctx.job.status, ctx.queue.name, ctx.workerId];
      ctx.log.info({ own: 1 }, "inside");
      return (await ctx.enqueue(child, { n: 7 }))?.id;
    };
    const queue = openQueue(database, { parent, child });
    const { ended, worker, log } = await startWorker(queue);
    const job = await queue.enqueue("parent");
    await ended(job.key);
    expect(seen).toEqual([job.key, job.key, 1, "active", queue.name, worker.workerId]);
    expect((await log.saw(({ message }) => message === "inside")).fields).toMatchObject({
      job: job.key,
      task: "parent",
      own: 1,
    });
    const childKey = String((await job.refresh()).result);
    await ended(childKey);
    expect((await queue.job(childKey))?.result).toBe(7);
  });

  it("J-20: update() keeps the engine's values in meta and ignores undefined members", async () => {
    const refused: unknown[] = [];
    const queue = openQueue(database, {
      given: async ({ job }: Context) => {
        await job.update({ progress: 0.5, meta: { step: 2 } });
        await job.update({ progress: undefined, meta: undefined } as object);
        await job
          .update({ meta: "text" as unknown as Record<string, unknown> })
          .catch((error) => refused.push(error));
        return [job.progress, job.meta];
      },
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, {
      meta: { step: 1, old: true, lost: 3, awaited: true },
    });
    await ended(job.key);
    const meta = { step: 2, lost: 3, awaited: true };
    expect(await job.refresh()).toMatchObject({ status: "complete", result: [0.5, meta] });
    expect(job.meta).toEqual(meta);
    expect(refused).toEqual([new InvalidJobError('meta must be an object, got "text"')]);
    await queue.update(job.key, { meta: { step: 3, lost: 0 } });
    expect((await job.refresh()).meta).toEqual({ step: 3, lost: 0, awaited: true });
  });

  it("J-20, J-33: update() stores progress and meta while the task runs, and the meta stays when it completes", async () => {
    const [updated, goOn] = [gate(), gate()];
    const queue = openQueue(database, {
      given: async (ctx: Context) => {
        await ctx.job.update({ progress: 0.5, meta: { step: 2 } });
        updated.open();
        await goOn.opened;
        return ctx.job.progress;
      },
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { meta: { step: 1 } });
    await updated.opened;
    expect(await job.refresh()).toMatchObject({ status: "active", progress: 0.5, meta: { step: 2 } });
    const { text = "" } = (await rowOf(database, job.key)) ?? {};
    expect(pythonComplaints(text, queue.name)).toEqual([]);
    goOn.open();
    await ended(job.key);
    expect(await job.refresh()).toMatchObject({
      status: "complete",
      progress: 1,
      meta: { step: 2 },
      result: 0.5,
    });
  });
});

describe("a new meta of a running task", () => {
  it.each([
    ["a document that jsonb can hold", '{"n": 1}'],
    ["a document that jsonb cannot hold", '{"n": NaN}'],
  ])(
    "J-20: keeps the limits of the run, which another process has stored since the start: %s",
    async (_, kwargs) => {
      const [started, update, updated, end] = [gate(), gate(), gate(), gate()];
      const queue = openQueue(database, {
        given: async ({ job }: Context) => {
          started.open();
          await update.opened;
          await job.update({ meta: { ...job.meta, step: 2 } });
          updated.open();
          await end.opened;
        },
      });
      await queue.connect();
      const key = `limits of ${queue.name}`;
      const document = `{"function": "given", "kwargs": ${kwargs}, "queue": "${queue.name}", "key": "${key}", "timeout": 300, "meta": {"runLimits": "1 5 5"}}`;
      await insertRow(database, { key, queue: queue.name, document });
      const { ended } = await startWorker(queue);
      await started.opened;
      expect(await queue.update(key, { timeout: 1, heartbeat: 1 })).toBe("updated");
      const marked = await queue.job(key);
      expect(marked?.meta).toEqual({ runLimits: `${marked?.started} 300 0` });
      update.open();
      await updated.opened;
      expect((await queue.job(key))?.meta).toEqual({ ...marked?.meta, step: 2 });
      // Otherwise another worker would end the run after 1 s, which its own worker does not do.
      const limits = { graceSeconds: 0, lostLimit: 3, checkInterval: 2, failedTtl: 600 };
      await sleep(1_100);
      expect(await queue.broker.sweepStuck(limits)).toEqual([]);
      end.open();
      expect(await ended(key)).toBe("Finished given");
    },
  );

  it("J-20: keeps no limits if there are none, and an empty meta removes everything else", async () => {
    const [updated, end] = [gate(), gate()];
    const queue = openQueue(database, {
      given: async ({ job }: Context) => {
        await job.update({ meta: {} });
        updated.open();
        await end.opened;
      },
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { meta: { step: 1 } });
    await updated.opened;
    expect((await rowOf(database, job.key))?.text).not.toContain("meta");
    end.open();
    await ended(job.key);
  });
});

describe("jobs in a worker", () => {
  it("D-6: one slot runs jobs one after another, in the order of the enqueue calls", async () => {
    const order: unknown[] = [];
    const queue = openQueue(
      database,
      { given: async (_ctx: Context, { n }: { n: number }) => void order.push(n) },
      { concurrency: 1 },
    );
    const jobs = await Promise.all(Array.from({ length: 200 }, (_, n) => queue.enqueue("given", { n })));
    const { ended } = await startWorker(queue);
    for (const job of jobs) await ended(job.key);
    expect(order).toEqual(jobs.map((_, n) => n));
  });

  it("a delayed job runs soon after its time, and not before it", async () => {
    const queue = openQueue(database, { given: (ctx: Context) => ctx.job.started });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { scheduled: inSeconds(0.5) });
    await ended(job.key);
    const started = Number((await job.refresh()).result);
    expect(started).toBeGreaterThanOrEqual(job.scheduled * 1_000);
    expect(started).toBeLessThan(job.scheduled * 1_000 + 10_000);
  });

  itNeeds("groups", "D-2: jobs of one group never run at the same time", async () => {
    const running = new Map<string, number>();
    let most = 0;
    const queue = openQueue(database, {
      given: async (ctx: Context) => {
        const group = String(ctx.job.groupKey);
        const now = (running.get(group) ?? 0) + 1;
        running.set(group, now);
        most = Math.max(most, now);
        await new Promise((resolve) => setTimeout(resolve, 2));
        running.set(group, now - 1);
      },
    });
    const jobs = await Promise.all(
      Array.from({ length: 40 }, (_, n) => queue.enqueue("given", undefined, { groupKey: `g${n % 4}` })),
    );
    const { ended } = await startWorker(queue);
    for (const job of jobs) await ended(job.key);
    expect(most).toBe(1);
  });

  itOnTables(
    "D-17: a worker with pollInterval runs jobs without LISTEN and without a session lock",
    async () => {
      const queue = openQueue(database, { given: () => 1 }, { pollInterval: 0.05 });
      const { ended } = await startWorker(queue);
      const job = await queue.enqueue("given");
      await ended(job.key);
      expect((await job.refresh()).result).toBe(1);
      const held = await database.query(
        `select 1 from pg_locks l join pg_stat_activity a using (pid)
       where locktype = 'advisory' and a.datname = current_database() and application_name = 'saq'`,
      );
      const listening = await database.query(
        `select 1 from pg_stat_activity where datname = current_database() and application_name = 'saq' and query ilike 'listen%'`,
      );
      expect([...held, ...listening]).toEqual([]);
    },
  );

  it("J-41: a job that Python enqueued runs, and Python can load the finished job", async () => {
    const queue = openQueue(database, { ok: (_ctx: Context, payload: object) => payload });
    const [golden] = goldenDocuments as [Golden];
    const document = documentIn(queue.name, golden);
    await queue.connect();
    await insertRow(database, { key: "k1", queue: queue.name, document });
    const { ended } = await startWorker(queue);
    await ended("k1");
    const row = await rowOf(database, "k1");
    expect(row).toMatchObject({ status: "complete", scheduled: 0 });
    expect(JSON.parse(row?.text ?? "")).toEqual({
      ...JSON.parse(document),
      status: "complete",
      progress: 1,
      attempts: 1,
      completed: expect.any(Number),
      started: expect.any(Number),
      touched: expect.any(Number),
      result: { a: 1 },
      worker_id: expect.stringMatching(onRedis || onPoll ? /^lease-/ : /^ts-/),
    });
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
  });
});
