/** `map` and `batch`: many jobs that belong together. */
import { describe, expect, it } from "@jest/globals";
import { InvalidJobError, JobGoneError, TimeoutError } from "../../../templates/backend/saq/errors.js";
import { JobError } from "../../../templates/backend/saq/queue/results.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import {
  claim,
  deleteRow,
  editRow,
  openQueue,
  rowOf,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { itOnPostgres, itOnTables, onRedis } from "../support/test-broker.js";

const database = useDatabase();

const tasks = {
  double: async (_ctx: Context, { n }: { n: number }) => {
    if (n < 0) throw new Error(`${n} is negative`);
    return 2 * n;
  },
  spread: async (ctx: Context, { n }: { n: number }) => {
    for (let i = 0; i < n; i++) await ctx.enqueue(tasks.double, { n: i }, { key: `spread-${i}` });
  },
};
const open = (options: object = {}) => openQueue(database, tasks, options);
const numbers = (count: number) => Array.from({ length: count }, (_, n) => ({ n }));

/** Returns the status and the error text of each job. */
async function errorsOf(queue: ReturnType<typeof open>, keys: string[]) {
  return (await queue.jobs(keys)).map((job) => job && `${job.status} ${job.error}`);
}

describe("map", () => {
  it("Q-6, T-16: returns results in the order of the payloads, for none, one and many", async () => {
    const queue = open();
    await startWorker(queue);
    expect(await queue.map("double", [])).toEqual([]);
    expect(await queue.map("double", [{ n: 4 }])).toEqual([8]);
    expect(await queue.map("double", numbers(1_500))).toEqual(numbers(1_500).map(({ n }) => 2 * n));
  });

  it("Q-6: gives options to all items, and options of single items override them", async () => {
    const queue = open();
    await startWorker(queue);
    await queue.map("double", numbers(2), {
      retries: 3,
      meta: { run: 7 },
      each: ({ n }, index) => ({ key: `item-${n}-${index}`, ...(n === 1 ? { retries: 5 } : {}) }),
    });
    expect(await queue.job("item-0-0")).toMatchObject({ retries: 3, meta: { run: 7 } });
    expect(await queue.job("item-1-1")).toMatchObject({ retries: 5, meta: { run: 7 } });
  });

  it("Q-6: rejects at once with the first job that fails, and the other jobs go on", async () => {
    const queue = open();
    await startWorker(queue);
    const later = Math.floor(Date.now() / 1_000) + 3_600;
    const error = await queue
      .map("double", [{ n: 1 }, { n: -1 }, { n: 2 }], {
        each: ({ n }) => ({ key: `first-${n}`, ...(n === 2 ? { scheduled: later } : {}) }),
      })
      .catch((reason) => reason);
    expect(error).toBeInstanceOf(JobError);
    expect(error.job.key).toBe("first--1");
    expect((await queue.job("first-2"))?.status).toBe("queued");
  });

  it("Q-6: with returnExceptions, returns the errors of jobs in place of their results", async () => {
    const queue = open();
    await startWorker(queue);
    const later = Math.floor(Date.now() / 1_000) + 3_600;
    const mapped = queue.map("double", [{ n: 1 }, { n: -1 }, { n: 2 }], {
      returnExceptions: true,
      each: ({ n }) => ({ key: `item-${n}`, ...(n === 2 ? { scheduled: later } : {}) }),
    });
    await until(async () => (await rowOf(database, "item-2")) !== undefined);
    await deleteRow(database, "item-2");
    const [one, failed, gone] = await mapped;
    expect(one).toBe(2);
    expect(failed).toBeInstanceOf(JobError);
    expect(gone).toBeInstanceOf(JobGoneError);
  });

  it("Q-6, T-17: rejects when waitTimeout is over, also with returnExceptions", async () => {
    const queue = open();
    await expect(
      queue.map("double", numbers(3), { waitTimeout: 0.05, returnExceptions: true }),
    ).rejects.toThrow(TimeoutError);
    expect(await queue.count("queued")).toBe(3);
  });

  it("Q-6: an item whose key is taken gets the existing job's result", async () => {
    const queue = open();
    await queue.enqueue("double", { n: 50 }, { key: "known", scheduled: 4e9 });
    const ended = { status: "complete", result: 100 };
    // On Redis, the key of a finished job would be free: there the job ends during the call.
    if (!onRedis) await editRow(database, "known", { status: "complete", members: ended });
    await startWorker(queue);
    const mapped = queue.map("double", numbers(2), { each: ({ n }) => (n === 1 ? { key: "known" } : {}) });
    if (onRedis) {
      await until(async () => (await queue.counts()).complete === 1);
      await editRow(database, "known", { status: "complete", members: ended });
    }
    expect(await mapped).toEqual([0, 100]);
  });

  it("D-68: refuses one key for several items, and stores nothing", async () => {
    const queue = open();
    await expect(queue.map("double", numbers(2), { key: "same" })).rejects.toThrow(
      'map("double"): key "same" belongs to more than one item; give each item a key of its own',
    );
    await expect(queue.map("double", numbers(2), { each: () => ({ key: "same" }) })).rejects.toThrow(
      InvalidJobError,
    );
    expect(await queue.count("queued")).toBe(0);
    await startWorker(queue);
    expect(await queue.map("double", [{ n: 1 }], { key: "alone" })).toEqual([2]);
  });
});

describe("batch", () => {
  it("Q-7, T-19: a scope that throws aborts all jobs that any call in it stored, and rejects with its error", async () => {
    const queue = open();
    const mine = new Error("mine");
    const thrown = await queue
      .batch(async () => {
        await queue.enqueue("double", { n: 1 }, { key: "b-one" });
        await queue.enqueueDetailed("double", { n: 1 }, { key: "b-detailed" });
        await queue.enqueueMany([
          { task: "double", payload: { n: 1 }, key: "b-many" },
          { task: "double", payload: { n: 1 }, key: "b-many-2" },
        ]);
        await queue.enqueue(queue.prepare("double", { n: 1 }, { key: "b-prepared" }));
        const wait = { waitTimeout: 0.01 };
        await queue.apply("double", { n: 1 }, { key: "b-applied", ...wait }).catch(() => {});
        await queue.map("double", [{ n: 1 }], { key: "b-mapped", ...wait }).catch(() => {});
        throw mine;
      })
      .catch((error) => error);
    expect(thrown).toBe(mine);
    const keys = ["one", "detailed", "many", "many-2", "prepared", "applied", "mapped"].map(
      (name) => `b-${name}`,
    );
    expect(await errorsOf(queue, keys)).toEqual(keys.map(() => "aborted cancelled"));
    expect(queue.counters.aborted).toBe(7);
  });

  it("Q-7: a scope that does not throw returns its value, and its jobs stay", async () => {
    const queue = open();
    const job = await queue.batch(() => queue.enqueue("double", { n: 1 }));
    expect(await errorsOf(queue, [job.key])).toEqual(["queued null"]);
  });

  it("D-60: a scope that throws aborts no other caller's jobs, and no older or later jobs with its keys", async () => {
    const queue = open();
    await queue.enqueue("double", { n: 1 }, { key: "older" });
    let goOn = () => {};
    const waits = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const failing = queue.batch(async () => {
      expect(await queue.enqueue("double", { n: 2 }, { key: "older" })).toBeNull();
      await queue.enqueue("double", { n: 2 }, { key: "own" });
      await queue.enqueue("double", { n: 2 }, { key: "followed" });
      await waits;
      throw new Error("too bad");
    });
    const other = await queue.batch(() => queue.enqueue("double", { n: 3 }, { key: "other" }));
    await queue.enqueue("double", { n: 3 }, { key: "outside" });
    expect(other?.key).toBe("other");
    await until(async () => (await rowOf(database, "followed")) !== undefined);
    await queue.abort("followed");
    if (!onRedis) await editRow(database, "followed", { scheduled: 0 });
    await queue.enqueue("double", { n: 4 }, { key: "followed" });
    goOn();
    await expect(failing).rejects.toThrow("too bad");
    expect(await errorsOf(queue, ["older", "own", "other", "outside", "followed"])).toEqual([
      "queued null",
      "aborted cancelled",
      "queued null",
      "queued null",
      "queued null",
    ]);
  });

  it("Q-7: a job that was still being stored when the scope threw is aborted too", async () => {
    const queue = open();
    await expect(
      queue.batch(() =>
        Promise.all([
          queue.enqueue("double", { n: 1 }, { key: "under-way" }),
          Promise.reject(new Error("at once")),
        ]),
      ),
    ).rejects.toThrow("at once");
    expect(await errorsOf(queue, ["under-way"])).toEqual(["aborted cancelled"]);
  });

  it("Q-7: an outer scope that throws also aborts jobs of its inner scopes; an inner one only its own jobs", async () => {
    const queue = open();
    const nest = (outerThrows: boolean, prefix: string) =>
      queue
        .batch(async () => {
          await queue.enqueue("double", { n: 1 }, { key: `${prefix}-outer` });
          await queue.batch(() => queue.enqueue("double", { n: 1 }, { key: `${prefix}-kept` }));
          await queue
            .batch(async () => {
              await queue.enqueue("double", { n: 1 }, { key: `${prefix}-inner` });
              throw new Error("inner");
            })
            .catch(() => {});
          if (outerThrows) throw new Error("outer");
        })
        .catch(() => {});
    await nest(false, "a");
    await nest(true, "b");
    expect(await errorsOf(queue, ["a-outer", "a-kept", "a-inner"])).toEqual([
      "queued null",
      "queued null",
      "aborted cancelled",
    ]);
    expect(await errorsOf(queue, ["b-outer", "b-kept", "b-inner"])).toEqual([
      "aborted cancelled",
      "aborted cancelled",
      "aborted cancelled",
    ]);
  });

  it("Q-7: a scope that a task opens covers ctx.enqueue inside it, and not ctx.enqueue before it", async () => {
    const queue = open();
    const spawning = openQueue(
      database,
      {
        double: tasks.double,
        spawn: async (ctx: Context) => {
          await ctx.enqueue(tasks.double, { n: 1 }, { key: "spawn-before" });
          await queue
            .batch(async () => {
              await spawning.batch(async () => {
                await ctx.enqueue(tasks.double, { n: 1 }, { key: "spawn-inside", scheduled: 4e9 });
                throw new Error("changed my mind");
              });
            })
            .catch(() => {});
        },
      },
      { name: queue.name },
    );
    await startWorker(spawning);
    await spawning.apply("spawn");
    expect(await errorsOf(queue, ["spawn-inside"])).toEqual(["aborted cancelled"]);
    expect((await queue.job("spawn-before"))?.status).not.toBe("aborted");
  });

  it("Q-7: a running job is marked as aborting, and a finished one is not changed", async () => {
    const queue = open();
    await queue
      .batch(async () => {
        await queue.enqueue("double", { n: 1 }, { key: "running" });
        await claim(queue);
        await queue.enqueue("double", { n: 1 }, { key: "finished" });
        await claim(queue);
        await queue.finish("finished", "complete", { result: 2 });
        throw new Error("late");
      })
      .catch(() => {});
    expect(await errorsOf(queue, ["running", "finished"])).toEqual(["aborting cancelled", "complete null"]);
  });

  itOnPostgres("D-60: a job that was stored although its call failed is aborted too", async () => {
    const queue = open();
    await queue.connect();
    const holder = await database.connect();
    await holder.query("begin");
    await holder.query(
      `insert into saq_jobs (key, job, queue, status) values ('held', '{}', '${queue.name}', 'queued')`,
    );
    const failed = await queue
      .batch(() =>
        queue.enqueueMany([
          { task: "double", payload: { n: 1 }, key: "held" },
          { task: "double", payload: { n: 1 }, key: "stored-alone" },
        ]),
      )
      .catch((error) => error);
    await holder.query("rollback");
    expect(failed).toMatchObject({ code: "key_held" });
    expect(await errorsOf(queue, ["held", "stored-alone"])).toEqual([null, "aborted cancelled"]);
  });

  itOnTables(
    "Q-7: the error names jobs that could not be aborted, and has the scope's error as its cause",
    async () => {
      const queue = open();
      const cause = new Error("the reason");
      const error = await queue
        .batch(async () => {
          await queue.enqueue("double", { n: 1 }, { key: "clung-to" });
          await database.query(`
          create function refuse() returns trigger language plpgsql as $$ begin raise 'no change today'; end $$;
          create trigger refuse before update on saq_jobs for each row execute function refuse()`);
          throw cause;
        })
        .catch((reason) => reason);
      await database.query("drop function refuse cascade");
      expect(error).toMatchObject({ code: "not_aborted", cause });
      expect(error.message).toBe(
        "A batch failed (see cause), and 1 of its jobs could not be aborted and may run: clung-to. " +
          "Abort them with queue.abort(key)",
      );
    },
  );
});
