/** How a worker runs jobs: limits, interruptions, fetching ahead, and tasks that misbehave. */
import { beforeAll, describe, expect, it, jest } from "@jest/globals";
import pg from "pg";
import {
  type Context,
  createSaq,
  defineQueue,
  defineSaq,
  inSeconds,
  type Job,
  type QueueOptions,
} from "../../../templates/backend/saq/index.js";
import { eventually, quickPickup } from "../support/processes/child.js";
import { newDatabase, type TestDatabase } from "../support/processes/database.js";
import { loadRedisClient } from "../support/processes/enqueuer.js";
import { itOnPostgres, itOnTables, itWithPush, onRedis } from "../support/test-broker.js";

jest.setTimeout(600_000);

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

type Handler = (ctx: Context, payload: { ms?: number; n?: number }) => unknown;

interface Stage {
  database: TestDatabase;
  /** Starts a worker for a queue with one task. */
  work: typeof startWork extends (at: TestDatabase["worker"], ...args: infer A) => infer R
    ? (...args: A) => R
    : never;
}

type Work = Awaited<ReturnType<typeof startWork>>;

async function startWork(
  { url, pollInterval }: TestDatabase["worker"],
  run: Handler,
  options: Omit<Partial<QueueOptions>, "name" | "tasks" | "dsn" | "scheduledTasks"> = {},
) {
  const config = defineQueue({
    name: "default",
    dsn: url,
    tasks: { run },
    shutdownGracePeriod: 0,
    ...(pollInterval === undefined ? {} : { pollInterval }),
    ...options,
  });
  const saq = createSaq(defineSaq({ queues: [config] }));
  const [worker] = saq.workers();
  if (!worker) throw new Error("A queue has a worker");
  await worker.start();
  const close = async () => {
    await worker.stop();
    await saq.close();
  };
  return { queue: saq.taskQueues.get("default"), worker, close };
}

/** Each test has its own database and waits more than it works, so that several tests run at the same time. */
function staged<Args extends unknown[]>(play: (stage: Stage, ...args: Args) => Promise<void>) {
  return async (...args: Args) => {
    const database = await newDatabase("running");
    const works: Work[] = [];
    const work = async (...given: Parameters<Stage["work"]>) => {
      const started = await startWork(database.worker, ...given);
      works.push(started);
      return started;
    };
    try {
      await play({ database, work }, ...args);
    } finally {
      for (const { close } of works) await close();
      await database.drop();
    }
  };
}

const ended = (job: Job | null) =>
  eventually("the job has ended", async () => {
    await job?.refresh();
    return job?.status === "complete" || job?.status === "failed" || job?.status === "aborted" ? job : null;
  });

describe("a worker that runs jobs", () => {
  beforeAll(async () => {
    if (onRedis) await loadRedisClient();
  });
  const untilFired = (ctx: Context) =>
    new Promise<Error>((resolve) => {
      ctx.signal.addEventListener("abort", () => resolve(ctx.signal.reason as Error));
    });

  it.concurrent(
    "W-12: a job's signal fires after its timeout, and its error names the timeout",
    staged(async ({ work }) => {
      const reasons: Error[] = [];
      const { queue } = await work(async (ctx) => {
        reasons.push(await untilFired(ctx));
        return "late";
      });
      const job = await ended(await queue.enqueue("run", {}, { timeout: 0.3 }));
      expect(job).toMatchObject({
        status: "failed",
        attempts: 1,
        result: null,
        error: "TimeoutError: timed out after 0.3 s",
      });
      expect(reasons.map((reason) => reason.name)).toEqual(["TimeoutError"]);
    }),
  );

  it.concurrent(
    "D-46: a task that ignores its timeout never runs twice at the same time in one process",
    staged(async ({ work }) => {
      let now = 0;
      let most = 0;
      let runs = 0;
      const { queue, worker } = await work(
        async () => {
          runs++;
          most = Math.max(most, ++now);
          await pause(runs === 1 ? 3_500 : 50);
          now--;
          return runs;
        },
        { cancellationHardDeadline: 0.2 },
      );
      const enqueued = await queue.enqueue("run", {}, { timeout: 0.5, retries: 2 });
      await eventually("the task is overdue", async () => worker.overdueKeys.includes(enqueued.key));
      const job = await ended(enqueued);
      expect(job).toMatchObject({ status: "complete", attempts: 2, result: 2 });
      expect(most).toBe(1);
      expect(worker.overdueKeys).toEqual([]);
    }),
  );

  it.concurrent(
    "a job that was taken over gets a LostError, and its worker does not run it twice at the same time",
    staged(async ({ database, work }) => {
      const reasons: Error[] = [];
      let now = 0;
      let most = 0;
      const { queue, worker } = await work(async (ctx) => {
        most = Math.max(most, ++now);
        if (reasons.length === 0) reasons.push(await untilFired(ctx));
        await pause(20);
        now--;
        return "second";
      });
      const job = await queue.enqueue("run", {}, { timeout: 0 });
      await eventually("it runs", async () => worker.runningKeys.length === 1);
      // The sweep of another worker changes the row in this way.
      if (onRedis) {
        await database.stored.takeOver(job.key);
        await database.stored.edit(job.key, { status: "queued", members: { status: "queued" } });
      } else
        await database.query("update saq_jobs set status = 'queued', lock_key = 1 where key = $1", [job.key]);
      await ended(job);
      expect(job).toMatchObject({ status: "complete", result: "second" });
      expect(reasons.map((reason) => reason.name)).toEqual(["LostError"]);
      expect(most).toBe(1);
      expect(worker.runningKeys).toEqual([]);
    }),
  );

  it.concurrent(
    "J-20: a job that sends no heartbeat in time is interrupted, and one that reports progress is not",
    staged(async ({ work }) => {
      const { queue } = await work(async (ctx, { ms = 0 }) => {
        const fired = untilFired(ctx);
        for (let beat = 0; beat < 6; beat++) {
          await Promise.race([fired, pause(500)]);
          if (ms > 0) await ctx.job.update({ progress: beat / 6 });
        }
      });
      const silent = await queue.enqueue("run", {}, { heartbeat: 1, timeout: 20 });
      const loud = await queue.enqueue("run", { ms: 1 }, { heartbeat: 1.5, timeout: 20 });
      expect((await ended(silent)).error).toBe("TimeoutError: no heartbeat for 1 s");
      expect(await ended(loud)).toMatchObject({ status: "complete" });
    }),
  );

  it.concurrent(
    "W-14: the signal of a running job fires within 1.5 s of its abort, however long the job has run",
    staged(async ({ work }) => {
      const { queue } = await work(async (ctx) => {
        await untilFired(ctx);
        throw new Error("gave up");
      });
      const waits: number[] = [];
      for (const age of [50, 300, 600, 900]) {
        const job = await queue.enqueue("run", {}, { timeout: 0 });
        await eventually("it runs", async () => (await job.refresh()).status === "active");
        await pause(age);
        const asked = performance.now();
        await job.abort("enough");
        await ended(job);
        waits.push(performance.now() - asked);
        expect(job).toMatchObject({ status: "aborted", error: "enough" });
      }
      // On an idle machine, every wait is below this limit.
      expect(Math.min(...waits)).toBeLessThan(1_700);
    }),
  );

  it.concurrent(
    "two workers share slow jobs, although previous short jobs made them prefetch",
    staged(async ({ work }) => {
      const counts = [0, 0];
      const workers = [];
      for (const index of [0, 1]) {
        const run: Handler = async (_, { ms = 0 }) => {
          if (ms === 0) return;
          counts[index] = (counts[index] ?? 0) + 1;
          await pause(ms);
        };
        workers.push(await work(run, { concurrency: 2 }));
      }
      const queue = workers[0]?.queue;
      await queue?.enqueueMany(Array.from({ length: 2_000 }, () => ({ task: "run", payload: {} })));
      await eventually("the short ones are done", async () => (await queue?.count("incomplete")) === 0);
      await queue?.enqueueMany(Array.from({ length: 40 }, () => ({ task: "run", payload: { ms: 400 } })));
      await eventually("the slow ones are done", async () => (await queue?.count("incomplete")) === 0);
      // If one worker fetched too many jobs ahead, the other worker would be idle.
      expect(Math.min(...counts)).toBeGreaterThanOrEqual(12);
      // No job ran twice.
      expect(counts.reduce((sum, count) => sum + count)).toBe(40);
    }),
  );

  itOnTables.concurrent(
    "grouped and ungrouped jobs do not starve each other, and each group runs one job at a time",
    staged(async ({ work }) => {
      const order: string[] = [];
      const groups = new Map<string, number>();
      let clash = false;
      const { queue } = await work(
        async (ctx) => {
          const group = ctx.job.groupKey;
          order.push(group === null ? "single" : "grouped");
          if (group === null) return pause(10);
          clash ||= (groups.get(group) ?? 0) > 0;
          groups.set(group, 1);
          await pause(10);
          groups.set(group, 0);
        },
        { concurrency: 4 },
      );
      await queue.enqueueMany(
        Array.from({ length: 400 }, (_, index) => ({
          task: "run",
          payload: {},
          scheduled: inSeconds(1.5),
          ...(index % 2 ? { groupKey: `group-${index % 40}` } : {}),
        })),
      );
      await eventually("all are done", async () => (await queue.count("incomplete")) === 0);
      expect(order).toHaveLength(400);
      expect(clash).toBe(false);
      const firstHalf = order.slice(0, 200).filter((kind) => kind === "grouped").length;
      expect(firstHalf).toBeGreaterThan(40);
      expect(firstHalf).toBeLessThan(160);
    }),
  );

  itWithPush.concurrent(
    "a job is picked up when its notification arrives, not at the next poll",
    staged(async ({ work }) => {
      const starts = new Map<string, number>();
      const { queue } = await work((ctx) => void starts.set(ctx.job.key, Date.now()));
      await quickPickup(async () => {
        const asked = Date.now();
        const job = await ended(await queue.enqueue("run", {}));
        return (starts.get(job.key) ?? 0) - asked;
      });
    }),
  );

  itOnPostgres.concurrent(
    "a grouped job is picked up when its notification arrives, not at the next poll",
    staged(async ({ work }) => {
      const starts = new Map<string, number>();
      const { queue } = await work((ctx) => void starts.set(ctx.job.key, Date.now()));
      await quickPickup(async () => {
        const asked = Date.now();
        const job = await ended(await queue.enqueue("run", {}, { groupKey: "one" }));
        return (starts.get(job.key) ?? 0) - asked;
      });
    }),
  );

  it.concurrent(
    "a scheduled job starts within 1.2 s after its time, and never before it",
    staged(async ({ work }) => {
      const starts = new Map<string, number>();
      const { queue } = await work((ctx) => void starts.set(ctx.job.key, Date.now()));
      const jobs: { job: Job; asked: number; delay: number }[] = [];
      for (const delay of [0.4, 1, 1.3, 1.7, 2.2, 2.5]) {
        await pause(130);
        const asked = Date.now();
        jobs.push({ job: await queue.enqueue("run", {}, { scheduled: inSeconds(delay) }), asked, delay });
      }
      for (const { job } of jobs) await ended(job);
      const late = jobs.map(({ job, asked, delay }) => (starts.get(job.key) ?? 0) - asked - delay * 1_000);
      expect(Math.min(...late)).toBeGreaterThanOrEqual(0);
      // On an idle machine, every job is below this limit.
      expect(Math.min(...late)).toBeLessThan(1_200);
    }),
  );

  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const silent = new Error("no stack");
  Object.defineProperty(silent, "stack", {
    get: () => {
      throw new Error("even this throws");
    },
  });
  it.concurrent.each<[string, () => unknown]>([
    ["throws undefined", () => Promise.reject(undefined)],
    ["throws an object that has no text form", () => Promise.reject(Object.create(null))],
    ["throws an object that contains itself", () => Promise.reject(circular)],
    ["throws a BigInt", () => Promise.reject(10n)],
    ["throws an error whose stack cannot be read", () => Promise.reject(silent)],
    ["throws an error with NUL and a lone surrogate", () => Promise.reject(new Error("a\0b\ud800c"))],
    ["returns an object that contains itself", () => circular],
    ["returns a function", () => () => 1],
    ["returns an object whose toJSON returns a circle", () => ({ toJSON: () => circular })],
    [
      "returns an object whose toJSON throws null",
      () => ({
        toJSON: () => {
          throw null;
        },
      }),
    ],
    [
      "returns a thenable that throws",
      () => ({
        // biome-ignore lint/suspicious/noThenProperty: a task may return anything
        then: () => {
          throw new Error("then");
        },
      }),
    ],
  ])(
    "a task that %s fails only its own job, and the worker continues",
    staged(async ({ work }, _: string, misbehave: () => unknown) => {
      const { queue, worker } = await work((_ctx, { n }) => (n === 1 ? "well" : misbehave()), {
        concurrency: 1,
      });
      const bad = await ended(await queue.enqueue("run", {}));
      expect(bad.status).toBe("failed");
      expect(bad.error).toEqual(expect.any(String));
      expect(await ended(await queue.enqueue("run", { n: 1 }))).toMatchObject({
        status: "complete",
        result: "well",
      });
      expect(worker.runningKeys).toEqual([]);
    }),
  );

  itOnTables.concurrent(
    "a row that another transaction holds does not delay other jobs",
    staged(async ({ database, work }) => {
      let finish = () => {};
      const isOver = new Promise<void>((resolve) => {
        finish = resolve;
      });
      const { queue } = await work((_, { n }) => (n === 1 ? isOver : undefined));
      const held = await queue.enqueue("run", { n: 1 }, { timeout: 0 });
      await eventually("it runs", async () => (await held.refresh()).status === "active");
      const holder = new pg.Client({ connectionString: database.url });
      await holder.connect();
      await holder.query("begin");
      await holder.query("select 1 from saq_jobs where key = $1 for update", [held.key]);
      finish();
      const others = await queue.enqueueMany(
        Array.from({ length: 30 }, () => ({ task: "run", payload: {} })),
      );
      for (const other of others) await ended(other);
      expect((await held.refresh()).status).toBe("active");
      await holder.end();
      expect(await ended(held)).toMatchObject({ status: "complete", attempts: 1 });
    }),
  );
});
