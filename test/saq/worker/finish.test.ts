/** A task that finishes its job in its own transaction: its effect and the end of its job are committed together. */
import { beforeAll, describe, expect, it } from "@jest/globals";
import pg from "pg";
import * as z from "zod";
import type { TransactionClient } from "../../../templates/backend/saq/core/transaction-client.js";
import { InvalidResultError, JobLostError, SaqError } from "../../../templates/backend/saq/errors.js";
import { NoRetry } from "../../../templates/backend/saq/tasks/no-retry.js";
import { type Context, task } from "../../../templates/backend/saq/tasks/task.js";
import { openProxy } from "../support/cuttable-proxy.js";
import {
  closeAfterTest,
  insertRow,
  openQueue,
  rowOf,
  startWorker,
  type TestWorker,
  until,
  useDatabase,
} from "../support/scenario.js";

const database = useDatabase();
beforeAll(() => database.query("create table effects (job text)"));

const openPool = (url = database.url) => {
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  pool.on("error", () => {});
  return closeAfterTest({ close: () => pool.end(), pool }).pool;
};

/** Runs `work` in a transaction, which is rolled back if `work` throws. */
async function transaction<T>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  // A connection that is cut reports it twice: the statement rejects, and this event is emitted.
  client.on("error", () => {});
  let broken: Error | undefined;
  try {
    await client.query("begin");
    const result = await work(client);
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch((failure: Error) => {
      broken = failure;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}

const effect = (client: TransactionClient, ctx: Context) =>
  client.query("insert into effects (job) values ($1)", [ctx.job.key]);
const effects = async (key: string) =>
  (await database.query("select 1 from effects where job = $1", [key])).length;
const status = async (key: string) => (await rowOf(database, key))?.status;
const lost = ({ log }: TestWorker) => log.lines.filter(({ message }) => message.startsWith("lost"));

/** Code can wait for `opened`, and the test resolves it with `open`. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

/**
 * Returns the document without its times, key, worker id and meta, which differ from run to run. The times must be
 * numbers.
 */
function timeless(text: string | undefined) {
  const { completed, queued, started, touched, key, worker_id, meta, ...rest } = JSON.parse(text ?? "{}");
  for (const time of [completed, queued, started, touched]) expect(time).toEqual(expect.any(Number));
  return rest;
}

describe("ctx.finish", () => {
  it("stores what a settlement stores; the result and the task's effect become visible only at the commit", async () => {
    const pool = openPool();
    const [inside, committed, after] = [gate(), gate(), gate()];
    const plain = async () => ({ sum: 3 });
    const own = async (ctx: Context) => {
      await transaction(pool, async (client) => {
        await effect(client, ctx);
        expect(await ctx.finish({ sum: 3 }, { client })).toEqual({ sum: 3 });
        inside.open();
        await committed.opened;
      });
      await after.opened;
      return { sum: "ignored" };
    };
    const queue = openQueue(database, { plain, own }, { defaults: { ttl: 77 }, timers: { abort: 0.05 } });
    const worker = await startWorker(queue);
    const usual = await queue.enqueue("plain");
    await worker.ended(usual.key);

    const result = queue.apply("own", undefined, { key: "own" });
    await inside.opened;
    expect([await status("own"), await effects("own")]).toEqual(["active", 0]);
    committed.open();
    // The commit has notified the caller: the task still runs.
    expect(await result).toEqual({ sum: 3 });
    expect([await status("own"), await effects("own")]).toEqual(["complete", 1]);
    expect(worker.worker.stats.complete).toBe(1);
    after.open();
    expect(await worker.ended("own")).toBe("Finished own");
    expect(worker.worker.stats).toEqual({ complete: 2, failed: 0, retried: 0, aborted: 0 });

    const [row, usualRow] = [await rowOf(database, "own"), await rowOf(database, usual.key)];
    expect(timeless(row?.text)).toEqual({ ...timeless(usualRow?.text), function: "own" });
    const [clock] = await database.query<{ now: number }>("select extract(epoch from now())::float8 as now");
    expect((row?.expire_at ?? 0) - (clock?.now ?? 0)).toBeGreaterThan(60);
    expect((row?.expire_at ?? 0) - (clock?.now ?? 0)).toBeLessThanOrEqual(77);
    expect(lost(worker)).toEqual([]);
  });

  it("a task that continues after its commit is not treated as if it had lost its job", async () => {
    const pool = openPool();
    const own = async (ctx: Context) => {
      await transaction(pool, (client) => ctx.finish(null, { client }));
      // Long enough for twenty checks of the rows of running jobs.
      await new Promise((resolve) => setTimeout(resolve, 400));
      await ctx.job.update({ progress: 0.5 });
      return ctx.signal.aborted;
    };
    const queue = openQueue(database, { own }, { timers: { abort: 0.02 } });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("own");
    expect(await worker.ended(job.key)).toBe("Finished own");
    expect(lost(worker)).toEqual([]);
    expect(await job.refresh()).toMatchObject({ status: "complete", progress: 1, result: null });
  });

  it("ctx.job.update after ctx.finish in the same transaction does not wait for the locked row", async () => {
    const pool = openPool();
    const own = (ctx: Context) =>
      transaction(pool, async (client) => {
        await ctx.finish("done", { client });
        await ctx.job.update({ progress: 0.5 });
      });
    const queue = openQueue(database, { own });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("own", undefined, { key: "updating" });
    expect(await worker.ended("updating")).toBe("Finished own");
    expect(await job?.refresh()).toMatchObject({ status: "complete", progress: 1, result: "done" });
  });

  it("after a rollback the task decides: an error retries the job, a return value becomes its result", async () => {
    const pool = openPool();
    const rolledBack = (ctx: Context) =>
      transaction(pool, async (client) => {
        await effect(client, ctx);
        await ctx.finish("rolled back", { client });
        throw new Error("no");
      });
    const throwing = async (ctx: Context) => {
      if (ctx.job.attempts === 1) await rolledBack(ctx);
      return transaction(pool, async (client) => {
        await effect(client, ctx);
        return ctx.finish("second", { client });
      });
    };
    const returning = async (ctx: Context) => {
      await rolledBack(ctx).catch(() => {});
      return "returned";
    };
    const queue = openQueue(database, { throwing, returning }, { defaults: { retries: 2 } });
    const worker = await startWorker(queue);
    const [thrown, returned] = [await queue.enqueue("throwing"), await queue.enqueue("returning")];
    expect(await worker.ended(thrown.key)).toBe("Retrying throwing");
    expect(await worker.ended(thrown.key, 2)).toBe("Finished throwing");
    expect(await thrown.refresh()).toMatchObject({ status: "complete", result: "second", attempts: 2 });
    expect(await effects(thrown.key)).toBe(1);
    expect(await worker.ended(returned.key)).toBe("Finished returning");
    expect(await returned.refresh()).toMatchObject({ status: "complete", result: "returned", attempts: 1 });
    expect(await effects(returned.key)).toBe(0);
    expect(worker.worker.stats).toEqual({ complete: 2, failed: 0, retried: 1, aborted: 0 });
  });

  it.each([
    ["is kept", 600],
    ["is deleted at once", -1],
  ])("an error after the commit changes nothing when the row %s", async (_what, ttl) => {
    const pool = openPool();
    const own = task({
      retries: 3,
      run: async (ctx: Context) => {
        await transaction(pool, async (client) => {
          await effect(client, ctx);
          await ctx.finish("done", { client });
        });
        throw new Error("too late");
      },
    });
    const queue = openQueue(database, { own }, { defaults: { ttl } });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("own");
    expect(await worker.ended(job.key)).toBe("Finished own");
    expect(await status(job.key)).toBe(ttl < 0 ? undefined : "complete");
    expect(await effects(job.key)).toBe(1);
    expect(worker.worker.stats).toEqual({ complete: 1, failed: 0, retried: 0, aborted: 0 });
    expect(worker.log.lines.filter(({ level }) => level === "warn").map(({ message }) => message)).toEqual([
      "own failed after ctx.finish; its job stays complete",
    ]);
    expect(lost(worker)).toEqual([]);
  });

  it("a snooze or a NoRetry after the commit changes nothing; after a rollback it ends the attempt", async () => {
    const pool = openPool();
    const own = async (ctx: Context, { how, commits }: { how: "snooze" | "for good"; commits: boolean }) => {
      if (ctx.job.meta.snoozes === 1) return "second run";
      const thrown = how === "snooze" ? ctx.snooze(0) : new NoRetry("for good");
      await transaction(pool, async (client) => {
        await ctx.finish("done", { client });
        if (!commits) throw thrown;
      });
      throw thrown;
    };
    const queue = openQueue(database, { own }, { defaults: { retries: 3 } });
    const worker = await startWorker(queue);
    const run = async (how: "snooze" | "for good", commits: boolean) => {
      const job = await queue.enqueue("own", { how, commits });
      const message = await worker.ended(job.key);
      return { job, message };
    };
    for (const how of ["snooze", "for good"] as const) {
      const { job, message } = await run(how, true);
      expect(message).toBe("Finished own");
      expect(await job.refresh()).toMatchObject({
        status: "complete",
        result: "done",
        attempts: 1,
        history: [],
      });
    }
    expect(worker.log.lines.filter(({ level }) => level === "warn").map(({ message }) => message)).toEqual([
      "own threw ctx.snooze after ctx.finish; its job stays complete",
      "own failed after ctx.finish; its job stays complete",
    ]);
    const failed = await run("for good", false);
    expect(failed.message).toBe("Failed own: it threw NoRetry, so its job is not retried");
    expect(await failed.job.refresh()).toMatchObject({ status: "failed", attempts: 1 });
    const snoozed = await run("snooze", false);
    expect(snoozed.message).toMatch(/^Snoozed own/);
    expect(await worker.ended(snoozed.job.key, 2)).toBe("Finished own");
    expect(await snoozed.job.refresh()).toMatchObject({ result: "second run", attempts: 1 });
    expect(worker.worker.stats).toEqual({ complete: 3, failed: 1, retried: 0, aborted: 0 });
  });

  it("W-8: afterProcess hooks see the job as the transaction stored it", async () => {
    const pool = openPool();
    const own = async (ctx: Context) => {
      await transaction(pool, (client) => ctx.finish("stored", { client }));
      return "ignored";
    };
    const seen: unknown[] = [];
    const afterProcess = (ctx: Context) => {
      seen.push({ status: ctx.job.status, result: ctx.job.result, exception: ctx.exception });
    };
    const queue = openQueue(database, { own }, { afterProcess });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("own");
    await worker.ended(job.key);
    await worker.worker.stop();
    expect(seen).toEqual([{ status: "complete", result: "stored", exception: undefined }]);
  });

  it("a timeout after the commit changes nothing", async () => {
    const pool = openPool();
    const own = task({
      timeout: 0.2,
      run: async (ctx: Context) => {
        await transaction(pool, (client) => ctx.finish("done", { client }));
        await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
      },
    });
    const queue = openQueue(database, { own });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("own");
    expect(await worker.ended(job.key)).toBe("Finished own");
    expect(await job.refresh()).toMatchObject({ status: "complete", result: "done" });
  });

  it("an enqueue with the same key right after the commit stores a new job", async () => {
    const pool = openPool();
    const queue = openQueue(database, {
      own: async (ctx: Context, { round }: { round: number }) => {
        await transaction(pool, (client) => ctx.finish(round, { client }));
        if (round === 1) await queue.enqueue("own", { round: 2 }, { key: "again", scheduled: 4_000_000_000 });
      },
    });
    const worker = await startWorker(queue);
    await queue.enqueue("own", { round: 1 }, { key: "again" });
    expect(await worker.ended("again")).toBe("Finished own");
    expect(await queue.job("again")).toMatchObject({ status: "queued", kwargs: { round: 2 } });
    expect(worker.worker.stats.complete).toBe(1);
  });

  it("throws for an aborted job, so that the transaction rolls back and the job ends as aborted", async () => {
    const pool = openPool();
    const [inside, aborted] = [gate(), gate()];
    const own = async (ctx: Context) => {
      await transaction(pool, async (client) => {
        await effect(client, ctx);
        inside.open();
        await aborted.opened;
        await ctx.finish("done", { client });
      });
    };
    const queue = openQueue(database, { own }, { timers: { abort: 30 }, pollInterval: 0.5 });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("own");
    await inside.opened;
    await job.abort("not wanted");
    aborted.open();
    expect(await worker.ended(job.key)).toBe("Aborted own");
    expect(await job.refresh()).toMatchObject({ status: "aborted", error: "not wanted" });
    expect(await effects(job.key)).toBe(0);
  });

  it("throws for a job that another worker took over, and does not change that worker's row", async () => {
    const pool = openPool();
    let thrown: unknown;
    const own = async (ctx: Context) => {
      // Another claim has another token.
      await database.query("update saq_jobs set lock_key = lock_key + 1 where key = $1", [ctx.job.key]);
      thrown = await transaction(pool, async (client) => {
        await effect(client, ctx);
        await ctx.finish("done", { client });
      }).catch((error: unknown) => error);
      throw thrown;
    };
    const queue = openQueue(database, { own }, { timers: { abort: 30 } });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("own");
    expect(await worker.ended(job.key)).toMatch(/^lost the job/);
    expect(thrown).toBeInstanceOf(JobLostError);
    expect((thrown as JobLostError).message).toMatch(
      /taken over by another worker.*Roll back the transaction/,
    );
    expect([await status(job.key), await effects(job.key)]).toEqual(["active", 0]);
    await database.query("delete from saq_jobs where key = $1", [job.key]);
  });

  it("throws after the attempt was interrupted, and after it has ended", async () => {
    const pool = openPool();
    const late = gate();
    const thrown: unknown[] = [];
    const finish = (ctx: Context) =>
      transaction(pool, (client) => ctx.finish("late", { client })).catch((error: unknown) =>
        thrown.push(error),
      );
    const slow = task({
      timeout: 0.1,
      run: async (ctx: Context) => {
        await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
        await finish(ctx);
      },
    });
    const done = async (ctx: Context) => {
      void late.opened.then(() => finish(ctx)).then(() => finished.open());
    };
    const finished = gate();
    const queue = openQueue(database, { slow, done });
    const worker = await startWorker(queue);
    const [slowJob, doneJob] = [await queue.enqueue("slow"), await queue.enqueue("done")];
    expect(await worker.ended(slowJob.key)).toBe("Failed slow");
    expect(await worker.ended(doneJob.key)).toBe("Finished done");
    late.open();
    await finished.opened;
    expect(thrown.map(String)).toEqual([
      expect.stringMatching(/^JobLostError: .* timed out after 0\.1 s/),
      expect.stringMatching(/^JobLostError: .* its task has ended/),
    ]);
    expect((await slowJob.refresh()).error).toMatch(/timed out/);
    expect((await doneJob.refresh()).result).toBeNull();
  });

  it("a client outside a transaction is refused, and nothing is written", async () => {
    const pool = openPool();
    const refusals: Promise<unknown>[] = [];
    const queue = openQueue(database, {
      own: (ctx: Context) => {
        const refusal = ctx.finish(1, { client: pool }).catch(({ code }) => code);
        refusals.push(refusal);
        return refusal;
      },
    });
    const { ended } = await startWorker(queue);
    const kept = await queue.enqueue("own");
    // With ttl -1 the row would be deleted instead of changed.
    const dropped = await queue.enqueue("own", undefined, { ttl: -1 });
    for (const { key } of [kept, dropped]) expect(await ended(key)).toBe("Finished own");
    expect(await Promise.all(refusals)).toEqual(["no_transaction", "no_transaction"]);
    expect((await kept.refresh()).result).toBe("no_transaction");
  });

  it("a second call is refused unless the transaction of the first call was rolled back", async () => {
    const pool = openPool();
    const errors: unknown[] = [];
    const refused = (call: Promise<unknown>) => call.catch((error: unknown) => errors.push(error));
    const own = async (ctx: Context) => {
      await transaction(pool, async (client) => {
        await ctx.finish(1, { client });
        throw new Error("serialization failure");
      }).catch(() => {});
      await transaction(pool, async (client) => {
        await ctx.finish(2, { client });
        await refused(ctx.finish(3, { client }));
        await refused(transaction(pool, (other) => ctx.finish(4, { client: other })));
      });
      await refused(transaction(pool, (client) => ctx.finish(5, { client })));
    };
    const queue = openQueue(database, { own });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("own");
    expect(await worker.ended(job.key)).toBe("Finished own");
    expect((await job.refresh()).result).toBe(2);
    expect(errors).toHaveLength(3);
    for (const error of errors) {
      expect(error).toBeInstanceOf(SaqError);
      expect(error).toMatchObject({ code: "already_finished" });
    }
  });

  it("can be called again in the same transaction after a rollback to a savepoint", async () => {
    const pool = openPool();
    const own = (ctx: Context) =>
      transaction(pool, async (client) => {
        await client.query("savepoint before");
        await ctx.finish("first", { client });
        await client.query("rollback to savepoint before");
        await ctx.finish("second", { client });
        await expect(ctx.finish("third", { client })).rejects.toMatchObject({ code: "already_finished" });
      });
    const queue = openQueue(database, { own });
    const { ended } = await startWorker(queue);
    const { key } = await queue.enqueue("own");
    expect(await ended(key)).toBe("Finished own");
    expect(await queue.job(key)).toMatchObject({ status: "complete", result: "second" });
  });

  it("D-40: refuses a result that cannot be stored, and the job fails without a retry", async () => {
    const pool = openPool();
    const finishing = (result: unknown) => async (ctx: Context) => {
      await transaction(pool, async (client) => {
        await effect(client, ctx);
        await ctx.finish(result, { client });
      });
    };
    const big = task({ retries: 3, run: finishing(1n) });
    const shaped = task({
      retries: 3,
      output: z.object({ n: z.number() }),
      run: finishing({ n: "one" }) as unknown as () => Promise<{ n: number }>,
    });
    const queue = openQueue(database, { big, shaped });
    const worker = await startWorker(queue);
    const [bigJob, shapedJob] = [await queue.enqueue("big"), await queue.enqueue("shaped")];
    expect(await worker.ended(bigJob.key)).toBe("Failed big");
    expect(await worker.ended(shapedJob.key)).toBe("Failed shaped");
    expect((await bigJob.refresh()).error).toMatch(
      /Invalid result of task "big": it cannot be stored as JSON: /,
    );
    expect((await shapedJob.refresh()).error).toMatch(/Invalid result of task "shaped": n: /);
    expect([await effects(bigJob.key), await effects(shapedJob.key)]).toEqual([0, 0]);
    expect(new InvalidResultError("t", []).code).toBe("invalid_result");
  });

  it("stores the result as the task's output schema returns it", async () => {
    const pool = openPool();
    const own = task({
      output: z.object({ n: z.number().transform((n) => `${n} pieces`) }),
      run: (ctx: Context) => transaction(pool, (client) => ctx.finish({ n: 3 }, { client })),
    });
    const queue = openQueue(database, { own });
    expect(
      await (await startWorker(queue)).ended(
        (await queue.enqueue("own", undefined, { key: "shape" }))?.key ?? "",
      ),
    ).toBe("Finished own");
    expect((await queue.job("shape"))?.result).toEqual({ n: "3 pieces" });
  });

  it("D-64: keeps every digit and character of a document that jsonb cannot hold", async () => {
    const pool = openPool();
    const own = (ctx: Context) => transaction(pool, (client) => ctx.finish("\u0000 \ud800", { client }));
    const queue = openQueue(database, { own });
    const worker = await startWorker(queue);
    const kwargs = '{"big": 12345678901234567890, "nan": NaN, "nul": "\\u0000", "half": "\\ud800"}';
    const document = `{"function": "own", "queue": "${queue.name}", "key": "odd", "kwargs": ${kwargs}}`;
    await insertRow(database, { key: "odd", queue: queue.name, document });
    await queue.enqueue("own");
    expect(await worker.ended("odd")).toBe("Finished own");
    const row = await rowOf(database, "odd");
    expect(row?.status).toBe("complete");
    expect(row?.text).toContain(`"kwargs": ${kwargs}`);
    expect((await queue.job("odd"))?.result).toBe("\u0000 \ud800");
  });

  it("a job that the task enqueues in its transaction is stored only if the transaction commits", async () => {
    const pool = openPool();
    const next = async (_ctx: Context, { from }: { from: string }) => from;
    const own = async (ctx: Context, { fails }: { fails: boolean }): Promise<void> => {
      await transaction(pool, async (client) => {
        await ctx.enqueue(next, { from: ctx.job.key }, { client, key: `next of ${ctx.job.key}` });
        await ctx.finish(null, { client });
        if (fails) throw new Error("no");
      });
    };
    const queue = openQueue(database, { own, next });
    const worker = await startWorker(queue);
    await queue.enqueue("own", { fails: false }, { key: "good" });
    await queue.enqueue("own", { fails: true }, { key: "bad" });
    expect(await worker.ended("bad")).toBe("Failed own");
    expect(await worker.ended("good")).toBe("Finished own");
    expect(await worker.ended("next of good")).toBe("Finished next");
    expect(await queue.job("next of bad")).toBeNull();
  });

  it.each([
    ["the connection breaks after the commit but before its response", "complete", 1],
    ["the connection breaks before the commit", "tried again", 2],
  ])("leaves one effect and one end when %s", async (_what, becomes, attempts) => {
    const proxy = await openProxy(database);
    const pool = openPool(proxy.url);
    const own = async (ctx: Context) => {
      const client = await pool.connect();
      client.on("error", () => {});
      try {
        await client.query("begin");
        await effect(client, ctx);
        await ctx.finish(ctx.job.attempts, { client });
        if (ctx.job.attempts === 1) {
          if (becomes === "complete") {
            const answered = proxy.mute();
            const commit = client.query("commit");
            // The error is handled below. Without this handler the rejection would be unhandled until then.
            commit.catch(() => {});
            await answered;
            proxy.cut();
            await commit;
          } else proxy.cut();
        }
        await client.query("commit");
      } finally {
        client.release(true);
      }
    };
    const queue = openQueue(database, { own }, { defaults: { retries: 3 } });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("own");
    expect(await worker.ended(job.key, attempts)).toBe("Finished own");
    expect(await job.refresh()).toMatchObject({ status: "complete", result: attempts, attempts });
    expect(await effects(job.key)).toBe(1);
    expect(worker.worker.stats).toEqual({ complete: 1, failed: 0, retried: attempts - 1, aborted: 0 });
  });

  it("a settlement waits while the task's transaction is still open", async () => {
    const pool = openPool();
    const [left, go] = [gate(), gate()];
    let open: Promise<unknown> = Promise.resolve();
    const own = async (ctx: Context) => {
      const finished = gate();
      open = transaction(pool, async (client) => {
        await ctx.finish("by its transaction", { client });
        finished.open();
        await go.opened;
      });
      await finished.opened;
      left.open();
      return "by its return";
    };
    const queue = openQueue(database, { own });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("own");
    await left.opened;
    // When no job is running any more, the worker settles this job and waits for the row that the transaction holds.
    await until(async () => worker.worker.runningKeys.length === 0);
    expect(await status(job.key)).toBe("active");
    go.open();
    await open;
    expect(await worker.ended(job.key)).toBe("Finished own");
    expect(await job.refresh()).toMatchObject({ status: "complete", result: "by its transaction" });
    expect(worker.worker.stats.complete).toBe(1);
  });
});
