/** Hooks around a worker and its jobs: their order, what they return, and what their failures do (W-4, W-7 to W-10). */
import { AsyncLocalStorage } from "node:async_hooks";
import { describe, expect, it } from "@jest/globals";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { Context, JobContext, WorkerContext } from "../../../templates/backend/saq/tasks/task.js";
import { Worker } from "../../../templates/backend/saq/worker/index.js";
import { LogBook } from "../support/log-book.js";
import { openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();

/** A promise that the test resolves with `open`. */
function gate() {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

describe("start-up and shutdown hooks", () => {
  it("W-8: a stop waits for a running start-up hook, so that the shutdown hook closes what it opened", async () => {
    const order: string[] = [];
    const begun = gate();
    const opening = gate();
    const queue = openQueue(
      database,
      { noop: () => null },
      {
        startup: async () => {
          begun.open();
          await opening.opened;
          order.push("opened");
          return { db: "pool" };
        },
        shutdown: (ctx: WorkerContext & { db?: string }) => void order.push(`closed ${ctx.db}`),
      },
    );
    const worker = new Worker(queue as unknown as Queue);
    const started = worker.start();
    await begun.opened;
    const stopped = worker.stop();
    // Longer than a stop waits for the other steps of a start.
    setTimeout(opening.open, 2_500);
    await Promise.all([started, stopped]);
    expect(order).toEqual(["opened", "closed pool"]);
  });

  it("T-57, W-8, W-9: run in order and add members to every job's ctx; shutdown hooks run after the last job", async () => {
    const order: string[] = [];
    const running = gate();
    const queue = openQueue(
      database,
      {
        use: async (ctx: Context<{ db: { name: string }; limit: number }>) => {
          running.open();
          await new Promise((resolve) => setTimeout(resolve, 100));
          order.push("task");
          return [ctx.db.name, ctx.limit];
        },
      },
      {
        startup: [
          async ({ queue: { name }, worker, workerId, log }: WorkerContext) => {
            log.info({}, "starting up");
            await Promise.resolve();
            order.push(`startup ${name === queue.name && worker.id === workerId}`);
            return { db: { name: "pool" } };
          },
          () => {
            order.push("startup 2");
            return { limit: 3 };
          },
          () => order.push("startup 3"),
        ],
        shutdown: [
          async (ctx: WorkerContext & { db: { name: string } }) => order.push(`shutdown ${ctx.db.name}`),
          () => {
            throw new Error("cannot");
          },
          () => order.push("shutdown 3"),
        ],
      },
    );
    const { worker, log, ended } = await startWorker(queue);
    expect(order).toEqual(["startup true", "startup 2", "startup 3"]);
    const job = await queue.enqueue("use");
    await running.opened;
    await worker.stop();
    await ended(job.key);
    expect(order.slice(3)).toEqual(["task", "shutdown pool", "shutdown 3"]);
    expect((await queue.job(job.key))?.result).toEqual(["pool", 3]);
    expect(log.lines.map(({ message }) => message)).toEqual(
      expect.arrayContaining(["starting up", "Failed to run shutdown hook"]),
    );
  });

  it("W-4: an error in a start-up hook ends the worker: start() rejects, shutdown hooks run, no job is claimed", async () => {
    const order: unknown[] = [];
    const failure = new Error("no license");
    const queue = openQueue(
      database,
      { given: () => order.push("task") },
      {
        startup: [
          () => ({ db: 1 }),
          () => {
            throw failure;
          },
          () => order.push("never"),
        ],
        shutdown: (ctx: WorkerContext & { db?: number }) => order.push(ctx.db),
      },
    );
    await queue.enqueue("given", undefined, { key: "after-failed-start" });
    const worker = new Worker(queue as never, { logger: new LogBook() });
    await expect(worker.start()).rejects.toBe(failure);
    await worker.finished;
    expect(order).toEqual([1]);
    expect((await rowOf(database, "after-failed-start"))?.status).toBe("queued");
    expect(await queue.workers()).toEqual([]);
  });

  it.each<[string, unknown, RegExp]>([
    [
      "a member that every ctx has",
      () => ({ job: 1 }),
      /^A startup hook returned a member "job", but every ctx already has/,
    ],
    [
      "an object of a class",
      () => new Map(),
      /^A startup hook returned an object of class Map\. Return nothing, or a plain object/,
    ],
    [
      "the same member",
      [() => ({ a: 1 }), () => ({ a: 2 })],
      /^Two startup hooks returned a member "a"\. Rename one of them$/,
    ],
  ])("W-9: the worker refuses to start when start-up hooks return %s", async (_, startup, message) => {
    const queue = openQueue(database, { given: () => 1 }, { startup: startup as () => unknown });
    const worker = new Worker(queue as never);
    await expect(worker.start()).rejects.toMatchObject({
      code: "config",
      message: expect.stringMatching(message),
    });
  });

  it("W-9: enqueue works when it is destructured from ctx, in a task and in start-up and shutdown hooks", async () => {
    const child = (_ctx: unknown, { from }: { from: string }) => from;
    const queue = openQueue(
      database,
      { parent: async ({ enqueue }: Context) => (await enqueue(child, { from: "task" }))?.id, child },
      {
        startup: ({ enqueue }: WorkerContext) => void enqueue(child, { from: "startup" }),
        shutdown: async ({ enqueue }: WorkerContext) => {
          await enqueue(child, { from: "shutdown" }, { key: "from-shutdown" });
        },
      },
    );
    const { worker, ended, log } = await startWorker(queue);
    await log.saw(({ message }) => message === "Finished child");
    const parent = await queue.enqueue("parent");
    await ended(parent.key);
    await ended(String((await parent.refresh()).result));
    await worker.stop();
    expect(await rowOf(database, "from-shutdown")).toMatchObject({ status: "queued" });
    expect(log.lines.some(({ level }) => level === "error")).toBe(false);
  });

  it("W-5, T-50: a stopped worker can start again, and then has a new id", async () => {
    const seen: string[] = [];
    const queue = openQueue(
      database,
      { given: (ctx: Context<{ start: number }>) => ctx.start },
      { startup: (ctx: WorkerContext) => ({ start: seen.push(ctx.workerId) }) },
    );
    const { worker, ended } = await startWorker(queue);
    await expect(worker.start()).rejects.toThrow("This worker is already started. Stop it first");
    await worker.stop();
    await worker.finished;
    await worker.start();
    const job = await queue.enqueue("given");
    await ended(job.key);
    expect((await job.refresh()).result).toBe(2);
    expect(new Set(seen).size).toBe(2);
    expect(worker.workerId).toBe(seen[1]);
  });
});

describe("hooks around a job", () => {
  it("T-55, T-56, W-8: run once per attempt, in order, also when the task fails, and never while idle", async () => {
    const order: string[] = [];
    const say = (word: string) => (ctx: JobContext) =>
      void order.push(`${word} ${ctx.job.function} ${ctx.job.status}`);
    const failure = new Error("boom");
    const queue = openQueue(
      database,
      {
        good: (ctx: Context<{ id: string }>) => ctx.id,
        bad: () => {
          throw failure;
        },
      },
      {
        beforeProcess: [say("one"), async (ctx: JobContext) => ({ id: `id of ${ctx.job.key}` })],
        afterProcess: [
          say("first"),
          async (ctx: JobContext) => {
            await Promise.resolve();
            order.push(`exception ${ctx.exception === undefined ? "none" : ctx.exception === failure}`);
          },
        ],
      },
    );
    const { ended, worker } = await startWorker(queue);
    const good = await queue.enqueue("good");
    await ended(good.key);
    const bad = await queue.enqueue("bad", undefined, { retries: 2 });
    await ended(bad.key, 2);
    await worker.stop();
    expect((await good.refresh()).result).toBe(`id of ${good.key}`);
    expect(order).toEqual([
      "one good active",
      "first good complete",
      "exception none",
      "one bad active",
      "first bad queued",
      "exception true",
      "one bad active",
      "first bad failed",
      "exception true",
    ]);
  });

  it("W-8: a beforeProcess error fails the attempt; the task does not run, and afterProcess hooks run", async () => {
    const order: unknown[] = [];
    const queue = openQueue(
      database,
      { given: () => order.push("task") },
      {
        beforeProcess: [
          () => {
            throw new Error("not now");
          },
          () => order.push("never"),
        ],
        afterProcess: (ctx: JobContext) => order.push(ctx.job.status, (ctx.exception as Error).message),
      },
    );
    const { ended, worker } = await startWorker(queue);
    const job = await queue.enqueue("given");
    expect(await ended(job.key)).toBe("Failed given");
    await worker.stop();
    expect(order).toEqual(["failed", "not now"]);
    expect((await queue.job(job.key))?.error).toContain("not now");
  });

  it("W-7: an afterProcess error is logged and changes nothing, and the next hook runs", async () => {
    const seen: unknown[] = [];
    const queue = openQueue(
      database,
      { given: () => "well" },
      {
        afterProcess: [
          async () => {
            throw new Error("too late");
          },
          (ctx: JobContext) => seen.push(ctx.job.result),
        ],
      },
    );
    const { log } = await startWorker(queue);
    const job = await queue.enqueue("given");
    const line = await log.saw(({ message }) => message === "Failed to run after process hook");
    expect(line.fields).toMatchObject({
      job: job.key,
      err: expect.objectContaining({ message: "too late" }),
    });
    await until(async () => seen.length > 0);
    expect(seen).toEqual(["well"]);
    expect((await job.refresh()).status).toBe("complete");
  });

  it("W-11, D-41: a job with an unknown task fails, its error lists the known tasks, and its hooks run", async () => {
    const order: string[] = [];
    const queue = openQueue(
      database,
      { known: () => 1 },
      {
        beforeProcess: (ctx: JobContext) => void order.push(`before ${ctx.job.function}`),
        afterProcess: (ctx: JobContext) => void order.push(`after ${ctx.job.status}`),
      },
    );
    await queue.connect();
    const other = openQueue(database, { gone: () => 1 }, { name: queue.name });
    const job = await other.enqueue("gone");
    const { ended, worker } = await startWorker(queue);
    await ended(job.key);
    await worker.stop();
    expect((await job.refresh()).error).toContain('Unknown task "gone" (registered: known)');
    expect(order).toEqual(["before gone", "after failed"]);
  });

  it("T-58: afterProcess hooks see the final status and the reason of an abort", async () => {
    const running = gate();
    let seen: unknown[] = [];
    const queue = openQueue(
      database,
      {
        wait: async ({ signal }: Context) => {
          running.open();
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
      },
      {
        afterProcess: (ctx: JobContext) => {
          seen = [ctx.job.status, (ctx.exception as Error).name, ctx.signal.aborted];
        },
      },
    );
    const { ended, worker } = await startWorker(queue);
    const job = await queue.enqueue("wait");
    await running.opened;
    await queue.abort(job.key, "enough");
    await ended(job.key);
    await worker.stop();
    expect(seen).toEqual(["aborted", "AbortError", true]);
    expect(await job.refresh()).toMatchObject({ status: "aborted", error: "enough" });
  });

  it("D-42: a stop during a beforeProcess hook gives the job back, and the task does not start", async () => {
    const [inHook, goOn] = [gate(), gate()];
    let ran = false;
    const queue = openQueue(
      database,
      {
        given: () => {
          ran = true;
        },
      },
      {
        beforeProcess: async () => {
          inHook.open();
          await goOn.opened;
        },
      },
    );
    const { worker, ended } = await startWorker(queue);
    const job = await queue.enqueue("given");
    await inHook.opened;
    const stopped = worker.stop({ grace: 0 });
    setTimeout(goOn.open, 50);
    await stopped;
    expect(await ended(job.key)).toBe("Requeued given, the worker is shutting down");
    expect(await job.refresh()).toMatchObject({ status: "queued", error: "cancelled", attempts: 0 });
    expect(ran).toBe(false);
  });

  it("W-10, T-62: a task sees the AsyncLocalStorage value that the hook of its own job set, and no other", async () => {
    const store = new AsyncLocalStorage<string>();
    const seen = new Map<string, (string | undefined)[]>();
    const together = gate();
    const look = (ctx: Context) => {
      seen.set(ctx.job.key, [store.getStore()]);
      if (seen.size === 4) together.open();
    };
    const queue = openQueue(
      database,
      {
        // Synchronous: it sees the async context in which it is called.
        quick: look,
        slow: async (ctx: Context) => {
          look(ctx);
          await together.opened;
          seen.get(ctx.job.key)?.push(store.getStore());
        },
      },
      {
        beforeProcess: async (ctx: JobContext) => {
          if (ctx.job.meta.id) store.enterWith(String(ctx.job.meta.id));
          await Promise.resolve();
        },
        afterProcess: (ctx: JobContext) => void seen.get(ctx.job.key)?.push(store.getStore()),
      },
    );
    const jobs = await queue.enqueueMany(
      (["a", "b", undefined, "c"] as const).map((id, n) => ({
        task: n === 3 ? ("quick" as const) : ("slow" as const),
        meta: id ? { id } : {},
      })),
    );
    const { worker, ended } = await startWorker(queue);
    for (const job of jobs) await ended(String(job?.key));
    await worker.stop();
    expect(jobs.map((job) => seen.get(String(job?.key)))).toEqual([
      ["a", "a", "a"],
      ["b", "b", "b"],
      [undefined, undefined, undefined],
      ["c", "c"],
    ]);
    expect(store.getStore()).toBeUndefined();
  });

  it("T-172: the later hooks of a job see what a beforeProcess hook returned; other jobs do not", async () => {
    const seen: unknown[] = [];
    let jobs = 0;
    const queue = openQueue(
      database,
      { given: (ctx: Context<{ n?: number }>) => ctx.n },
      {
        beforeProcess: [
          () => (jobs++ === 0 ? { n: 7 } : undefined),
          (ctx: JobContext & { n?: number }) => void seen.push(["before", ctx.n]),
        ],
        afterProcess: (ctx: JobContext & { n?: number }) => void seen.push(["after", ctx.n]),
      },
    );
    const { ended, worker } = await startWorker(queue);
    for (let job = 0; job < 2; job++) await ended((await queue.enqueue("given")).key);
    await worker.stop();
    expect(seen).toEqual([
      ["before", 7],
      ["after", 7],
      ["before", undefined],
      ["after", undefined],
    ]);
  });
});

describe("hooks that take a long time", () => {
  it("at most `concurrency` afterProcess hooks run at a time, and health counts those that wait", async () => {
    const go = gate();
    let now = 0;
    let most = 0;
    let runs = 0;
    const queue = openQueue(
      database,
      { noop: () => null },
      {
        concurrency: 5,
        afterProcess: async () => {
          most = Math.max(most, ++now);
          await go.opened;
          now--;
          runs++;
        },
      },
    );
    const { worker } = await startWorker(queue);
    await queue.enqueueMany(Array.from({ length: 100 }, () => ({ task: "noop" as const })));
    await until(async () => worker.health.hooks.waiting === 95);
    expect(worker.health.hooks).toEqual({ running: 5, waiting: 95, overdue: 0 });
    go.open();
    await until(async () => runs === 100);
    expect(most).toBe(5);
    expect(worker.health.hooks).toEqual({ running: 0, waiting: 0, overdue: 0 });
  });

  it("an afterProcess hook that never ends is logged, and the worker no longer waits for it", async () => {
    const go = gate();
    const after: string[] = [];
    const queue = openQueue(
      database,
      { noop: () => null },
      {
        concurrency: 1,
        hookTimeout: 0.1,
        afterProcess: [
          ({ job }: JobContext) => (job.id === "stuck" ? go.opened : null),
          ({ job }: JobContext) => void after.push(job.id),
        ],
      },
    );
    const { worker, log, ended } = await startWorker(queue);
    await queue.enqueue("noop", undefined, { key: "stuck" });
    await ended("stuck");
    await queue.enqueue("noop", undefined, { key: "next" });
    await until(async () => after.includes("next"));
    expect(after).toEqual(["stuck", "next"]);
    const errors = log.lines.filter(({ level }) => level === "error");
    expect(errors.map(({ message, fields }) => [message, fields.job])).toEqual([
      ["Failed to run after process hook", "stuck"],
    ]);
    expect(String(errors[0]?.fields.err)).toContain("the hook has not ended within 0.1 s (hookTimeout)");
    expect(worker.health.hooks).toEqual({ running: 0, waiting: 0, overdue: 1 });
    go.open();
    await until(async () => worker.health.hooks.overdue === 0);
  });

  it("a shutdown hook that never ends does not prevent the next hooks from running", async () => {
    const order: string[] = [];
    const queue = openQueue(
      database,
      { noop: () => null },
      { hookTimeout: 0.1, shutdown: [() => new Promise(() => {}), () => void order.push("second")] },
    );
    const { worker, log } = await startWorker(queue);
    await worker.stop();
    expect(order).toEqual(["second"]);
    expect(log.lines.filter(({ level }) => level === "error").map(({ message }) => message)).toEqual([
      "Failed to run shutdown hook",
    ]);
  });

  it("a slow start-up hook is logged with its number while the worker waits for it", async () => {
    const go = gate();
    const log = new LogBook();
    const queue = openQueue(
      database,
      { noop: () => null },
      { hookTimeout: 0.1, startup: [() => null, () => go.opened] },
    );
    const worker = new Worker(queue as unknown as Queue, { logger: log });
    const started = worker.start();
    const { fields } = await log.saw(({ message }) => message.startsWith("a startup hook has not ended yet"));
    expect(fields).toEqual({ hook: 2, seconds: 0.1 });
    go.open();
    await started;
    await worker.stop();
  });
});
