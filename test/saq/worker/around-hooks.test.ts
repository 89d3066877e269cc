/** `aroundProcess` hooks: their order, and what happens if a hook does not do what it should. */
import { AsyncLocalStorage } from "node:async_hooks";
import { describe, expect, it } from "@jest/globals";
import type { Context, JobContext } from "../../../templates/backend/saq/tasks/task.js";
import { tasks as threadTasks } from "../support/processes/thread-tasks.js";
import { openQueue, startWorker, useDatabase } from "../support/scenario.js";

const database = useDatabase();

type Next = () => Promise<unknown>;

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe("aroundProcess hooks", () => {
  it("run after beforeProcess and before afterProcess, the first one outermost, and see members of ctx", async () => {
    const order: string[] = [];
    const around = (name: string) => async (ctx: Context<{ id: number }>, next: Next) => {
      order.push(`${name} begins ${ctx.id} ${ctx.job.status}`);
      const result = await next();
      order.push(`${name} ends ${String(result)}`);
    };
    const queue = openQueue(
      database,
      {
        given: async () => {
          await sleep(5);
          order.push("task");
          return "well";
        },
      },
      {
        beforeProcess: [() => void order.push("before"), () => ({ id: 7 })],
        aroundProcess: [around("outer"), around("inner")],
        afterProcess: (ctx: JobContext) => void order.push(`after ${ctx.job.status}`),
      },
    );
    const { ended, worker } = await startWorker(queue);
    const job = await queue.enqueue("given");
    await ended(job.key);
    await worker.stop();
    expect(order).toEqual([
      "before",
      "outer begins 7 active",
      "inner begins 7 active",
      "task",
      "inner ends well",
      "outer ends well",
      "after complete",
    ]);
    expect((await job.refresh()).result).toBe("well");
  });

  it("run once per attempt, receive the task's error, and can wrap it in an error of their own", async () => {
    const seen: string[] = [];
    const queue = openQueue(
      database,
      {
        bad: () => {
          throw new Error("boom");
        },
      },
      {
        aroundProcess: async (ctx: JobContext, next: Next) => {
          await next().catch((error: Error) => {
            seen.push(`${ctx.job.attempts} ${error.message}`);
            throw new Error("wrapped", { cause: error });
          });
        },
      },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("bad", undefined, { retries: 2 });
    expect(await ended(job.key)).toBe("Retrying bad");
    expect(await ended(job.key, 2)).toBe("Failed bad");
    expect(seen).toEqual(["1 boom", "2 boom"]);
    expect((await job.refresh()).error).toContain("wrapped");
  });

  it("a task runs in the asynchronous context in which a hook called next, and no other job sees it", async () => {
    const store = new AsyncLocalStorage<string>();
    const look = async () => {
      await sleep(5);
      return store.getStore() ?? null;
    };
    const queue = openQueue(
      database,
      { look },
      { aroundProcess: (ctx: JobContext, next: Next) => store.run(`of ${ctx.job.key}`, next) },
    );
    const jobs = await queue.enqueueMany([{ task: "look" }, { task: "look" }, { task: "look" }]);
    const { ended } = await startWorker(queue);
    for (const job of jobs) {
      await ended(String(job?.key));
      expect((await job?.refresh())?.result).toBe(`of ${job?.key}`);
    }
  });

  it("run in the main thread around a task that runs in a thread", async () => {
    const seen: unknown[] = [];
    const queue = openQueue(
      database,
      { answers: threadTasks.answers },
      {
        // The start of a thread takes longer than the default timeout on a busy machine.
        defaults: { timeout: 120 },
        aroundProcess: async (ctx: JobContext, next: Next) => {
          seen.push(ctx.job.function, await next());
        },
      },
    );
    const { ended, worker } = await startWorker(queue);
    const job = await queue.enqueue("answers", { what: "date" });
    await ended(job.key);
    await worker.stop();
    const result = { at: "1970-01-01T00:00:00.000Z", own: "as its toJSON says" };
    expect(seen).toEqual(["answers", result]);
    expect((await job.refresh()).result).toEqual(result);
  });
});

describe("an aroundProcess hook that makes a mistake", () => {
  /** Runs one job with the hook. Returns the worker's message, the job, and how often its task ran. */
  async function runWith(
    hook: (ctx: JobContext, next: Next) => unknown,
    task: () => unknown = () => "result of the task",
    options: { hookTimeout?: number } = {},
  ) {
    let runs = 0;
    const given = () => {
      runs++;
      return task();
    };
    const queue = openQueue(database, { given }, { aroundProcess: hook, ...options });
    const { ended, worker, log } = await startWorker(queue);
    const job = await queue.enqueue("given");
    const message = await ended(job.key);
    const health = worker.health.hooks;
    return { message, job: await job.refresh(), runs, log, health };
  }

  it("does not call next: the attempt fails and says so, and the task does not run", async () => {
    const { message, job, runs } = await runWith(() => "done");
    expect([message, runs]).toEqual(["Failed given", 0]);
    expect(job.error).toContain(
      "an aroundProcess hook ended without calling next(), so the task did not run",
    );
  });

  it("calls next twice: the second call rejects, and the task runs once", async () => {
    const errors: string[] = [];
    const { message, job, runs } = await runWith(async (_ctx, next) => {
      await next();
      await next().catch((error: Error) => errors.push(error.message));
    });
    expect([message, runs, job.result]).toEqual(["Finished given", 1, "result of the task"]);
    expect(errors).toEqual([
      "an aroundProcess hook called next() twice; the task runs only once. Call next() once",
    ]);
  });

  it("awaits the second call of next: the attempt fails with its error", async () => {
    const { message, job, runs } = await runWith(async (_ctx, next) => {
      await next();
      await next();
    });
    expect([message, runs]).toEqual(["Failed given", 1]);
    expect(job.error).toContain("called next() twice");
  });

  it("calls next after it has ended: the task does not run", async () => {
    let late: Promise<string> | undefined;
    const { message, runs } = await runWith((_ctx, next) => {
      late = sleep(20).then(() =>
        next().then(
          () => "ran",
          (error: Error) => error.message,
        ),
      );
    });
    expect([message, runs]).toEqual(["Failed given", 0]);
    expect(await late).toBe(
      "an aroundProcess hook called next() after it had ended, so the task does not run",
    );
  });

  it("throws before next: the attempt fails with its error, and the task does not run", async () => {
    const { message, job, runs } = await runWith(() => {
      throw new Error("no tenant");
    });
    expect([message, runs]).toEqual(["Failed given", 0]);
    expect(job.error).toContain("no tenant");
  });

  it("throws after the task has succeeded: the attempt fails with its error", async () => {
    const { message, job, runs } = await runWith(async (_ctx, next) => {
      await next();
      throw new Error("cannot commit");
    });
    expect([message, runs, job.result]).toEqual(["Failed given", 1, null]);
    expect(job.error).toContain("cannot commit");
  });

  it("returns something else: the result is that of the task", async () => {
    const { message, job } = await runWith(async (_ctx, next) => {
      await next();
      return "result of the hook";
    });
    expect([message, job.result]).toEqual(["Finished given", "result of the task"]);
  });

  it("catches the task's error and returns: the attempt fails all the same", async () => {
    const { message, job } = await runWith(
      (_ctx, next) => next().catch(() => "never mind"),
      () => {
        throw new Error("boom");
      },
    );
    expect(message).toBe("Failed given");
    expect(job.error).toContain("boom");
  });

  it("does not await next: the attempt ends when the task ends, with its result", async () => {
    const { message, job } = await runWith(
      (_ctx, next) => void next(),
      async () => {
        await sleep(50);
        return "late";
      },
    );
    expect([message, job.result]).toEqual(["Finished given", "late"]);
  });

  it("throws while the task still runs: the attempt ends when the task ends, with the hook's error", async () => {
    let hasTaskEnded = false;
    const { message, job } = await runWith(
      (_ctx, next) => {
        void next();
        throw new Error("too early");
      },
      async () => {
        await sleep(50);
        hasTaskEnded = true;
      },
    );
    expect([message, hasTaskEnded]).toEqual(["Failed given", true]);
    expect(job.error).toContain("too early");
  });

  it("does not end after its task: after hookTimeout it is logged, and the attempt ends as the task did", async () => {
    let release: () => void = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { message, job, log, health } = await runWith(
      async (_ctx, next) => {
        await next();
        await released;
      },
      () => "result of the task",
      { hookTimeout: 0.1 },
    );
    expect([message, job.result]).toEqual(["Finished given", "result of the task"]);
    const errors = log.lines.filter(({ level }) => level === "error");
    expect(errors.map((line) => line.message)).toEqual([
      "an aroundProcess hook has not ended in time; the attempt ends without it",
    ]);
    expect(String(errors[0]?.fields.err)).toContain("the hook has not ended within 0.1 s (hookTimeout)");
    expect(health.overdue).toBe(1);
    release();
  });

  it("does not end and does not call next: the job's timeout ends the attempt", async () => {
    const queue = openQueue(
      database,
      { given: () => null },
      {
        cancellationHardDeadline: 0.1,
        aroundProcess: ({ signal }: JobContext) =>
          new Promise((resolve) => signal.addEventListener("abort", resolve)),
      },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { timeout: 0.2 });
    expect(await ended(job.key)).toBe("Failed given");
    expect((await job.refresh()).error).toContain("TimeoutError: timed out after 0.2 s");
  });

  it("calls next when the attempt must end: next rejects with the reason, and the task does not run", async () => {
    let runs = 0;
    let rejected: unknown;
    const queue = openQueue(
      database,
      { given: () => runs++ },
      {
        aroundProcess: async ({ signal }: JobContext, next: Next) => {
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          await next().catch((error: unknown) => {
            rejected = error;
          });
        },
      },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { timeout: 0.2 });
    expect(await ended(job.key)).toBe("Failed given");
    expect(runs).toBe(0);
    expect(rejected).toMatchObject({ name: "TimeoutError" });
  });
});
