/** A task that ends its job without a retry (NoRetry), or that runs again later without an error (ctx.snooze). */
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "@jest/globals";
import { z } from "zod";
import { claimedFields } from "../../../templates/backend/saq/core/stored-job.js";
import { NoRetry, task } from "../../../templates/backend/saq/index.js";
import { Snooze } from "../../../templates/backend/saq/tasks/snooze.js";
import type { Context, JobContext } from "../../../templates/backend/saq/tasks/task.js";
import type { StandardSchema } from "../../../templates/backend/saq/tasks/validation.js";
import { settlementOf } from "../../../templates/backend/saq/worker/settlement/settlement.js";
import { pythonComplaints } from "../support/golden-documents.js";
import {
  claim,
  openQueue,
  rowOf,
  serverSeconds,
  settle,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { itNeeds } from "../support/test-broker.js";

const database = useDatabase();

class CardRefused extends NoRetry {}

/** What another copy of the engine, or code of another realm, throws: only the symbol says what it is. */
const foreign = (symbol: string, members: object): Error =>
  Object.assign(runInNewContext("new Error('foreign')") as Error, {
    ...members,
    [Symbol.for(`saq.${symbol}`)]: true,
  });

const warnings = ({ lines }: { lines: readonly { level: string; message: string }[] }) =>
  lines.flatMap(({ level, message }) => (level === "warn" || level === "error" ? [message] : []));

describe("NoRetry", () => {
  it.each<[string, () => unknown, RegExp]>([
    [
      "itself",
      () => new NoRetry("card expired", { cause: new TypeError("the reason") }),
      /^NoRetry: card expired\n {4}at [\s\S]*\n\n {2}Caused by: TypeError: the reason\n/,
    ],
    ["a subclass", () => new CardRefused("card expired"), /^CardRefused: card expired\n {4}at /],
    [
      "an error of another realm",
      () => foreign("NoRetry", { code: "E_CARD" }),
      /^Error: foreign\n[\s\S]*E_CARD/,
    ],
  ])("fails its job although attempts are left, with the text of any error: %s", async (_, make, text) => {
    const seen: unknown[] = [];
    const queue = openQueue(
      database,
      {
        given: () => {
          throw make();
        },
      },
      { afterProcess: ({ job, exception }: JobContext) => void seen.push(job.status, exception) },
    );
    const { ended, worker, log } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 5 });
    expect(await ended(job.key)).toBe("Failed given: it threw NoRetry, so its job is not retried");
    expect(await job.refresh()).toMatchObject({ status: "failed", attempts: 1, result: null });
    expect(job.error).toMatch(text);
    expect(worker.stats).toMatchObject({ complete: 0, failed: 1, retried: 0 });
    const [line] = log.lines.filter(({ level }) => level === "error");
    await until(async () => seen.length === 2);
    expect(seen).toEqual(["failed", line?.fields.err]);
  });

  const refusing: StandardSchema = {
    "~standard": {
      version: 1,
      vendor: "test",
      validate: () => {
        throw new NoRetry("refused");
      },
    },
  };
  const throwing = () => {
    throw new NoRetry("refused");
  };
  it.each<[string, object, object]>([
    ["a schema", { output: refusing }, {}],
    ["a beforeProcess hook", {}, { beforeProcess: throwing }],
    ["an aroundProcess hook", {}, { aroundProcess: throwing }],
  ])("has the same effect if %s throws it", async (_, definition, options) => {
    const given = task({ run: () => "done", ...definition });
    const queue = openQueue(database, { given }, options);
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 5 });
    await ended(job.key);
    expect(await job.refresh()).toMatchObject({ status: "failed", attempts: 1 });
    expect(job.error).toMatch(/^NoRetry: refused/);
  });

  it("has no effect as the cause of another error, or for the job that waits for it", async () => {
    const refused = () => {
      throw new NoRetry("inner");
    };
    const queue = openQueue(database, {
      cause: () => {
        throw new Error("outer", { cause: new NoRetry("inner") });
      },
      refused,
      waits: ({ apply }: Context) => apply(refused),
    });
    const { ended } = await startWorker(queue);
    for (const name of ["cause", "waits"] as const) {
      const job = await queue.enqueue(name, undefined, { retries: 2 });
      expect([await ended(job.key), await ended(job.key, 2)]).toEqual([`Retrying ${name}`, `Failed ${name}`]);
      expect((await job.refresh()).error).toContain("inner");
    }
  });
});

describe("ctx.snooze", () => {
  it("runs its job again without counting the attempt; nothing has failed, and apply waits until the end", async () => {
    const runs: { attempts: number; startedAt: number; thrownAt: number }[] = [];
    const seen: unknown[] = [];
    const queue = openQueue(
      database,
      {
        poll: async (ctx: Context) => {
          const run = { attempts: ctx.job.attempts, startedAt: await database.stored.now(), thrownAt: 0 };
          await ctx.job.update({ progress: 0.5, meta: { ...ctx.job.meta, step: runs.push(run) } });
          run.thrownAt = await database.stored.now();
          if (runs.length < 3) throw ctx.snooze(runs.length === 1 ? 0.2 : 0);
          return "ready";
        },
      },
      {
        afterProcess: ({ job, exception }: JobContext) =>
          void seen.push([job.status, job.attempts, job.error, exception]),
      },
    );
    const { ended, worker, log } = await startWorker(queue);
    expect(await queue.apply("poll", undefined, { key: `poll of ${queue.name}`, retries: 1 })).toBe("ready");
    const job = await queue.job(`poll of ${queue.name}`);
    const messages = [1, 2, 3].map((nth) => ended(job?.key ?? "", nth));
    expect(await Promise.all(messages)).toEqual([
      "Snoozed poll: its job is due again in 0.2 s",
      "Snoozed poll: its job is due again in 0 s",
      "Finished poll",
    ]);
    await until(async () => seen.length === 3);
    const snoozed = ["queued", 0, null, undefined];
    expect(seen).toEqual([snoozed, snoozed, ["complete", 1, null, undefined]]);
    expect(runs.map(({ attempts }) => attempts)).toEqual([1, 1, 1]);
    expect((runs[1]?.startedAt ?? 0) - (runs[0]?.thrownAt ?? 0)).toBeGreaterThanOrEqual(0.2);
    expect(job).toMatchObject({ attempts: 1, meta: { snoozes: 2, step: 3 }, history: [] });
    expect(worker.stats).toEqual({ complete: 1, failed: 0, retried: 0, aborted: 0 });
    expect(queue.counters).toMatchObject({ complete: 1, failed: 0, retried: 0 });
    expect(warnings(log)).toEqual([]);
  });

  it.each<[string, (ctx: Context) => unknown]>([
    ["ctx.snooze", (ctx) => ctx.snooze(3_600.5)],
    ["an error of another realm", () => foreign("Snooze", { seconds: 3_600.5 })],
  ])("stores when the job is due, and no error: %s", async (_, make) => {
    const queue = openQueue(database, {
      given: (ctx: Context) => {
        throw make(ctx);
      },
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 1, timeout: 5 });
    const before = await serverSeconds(database);
    expect(await ended(job.key)).toMatch(/^Snoozed given/);
    const after = await serverSeconds(database);
    expect(await job.refresh()).toMatchObject({
      status: "queued",
      attempts: 0,
      started: 0,
      completed: 0,
      progress: 0,
      error: null,
      result: null,
    });
    expect(job.scheduled).toBeGreaterThanOrEqual(before + 3_600.5);
    expect(job.scheduled).toBeLessThanOrEqual(after + 3_603);
    const row = await rowOf(database, job.key);
    expect(row).toMatchObject({ status: "queued", scheduled: job.scheduled, expire_at: null });
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
    expect(await queue.counts()).toMatchObject({ scheduled: 1, queued: 0, active: 0 });
    // An abort and a retry by hand treat it as any other waiting job, and the count begins anew.
    expect(await queue.abort(job.key)).toBe("aborted");
    expect(await queue.retry(job.key)).toBe("queued");
    expect(await ended(job.key, 2)).toMatch(/^Snoozed given/);
    expect((await job.refresh()).meta).toEqual({ snoozes: 1 });
  });

  it("takes back only its own attempt, and removes the error of the attempt before", async () => {
    const runs: [attempts: number, error: string | undefined][] = [];
    const queue = openQueue(database, {
      given: (ctx: Context) => {
        runs.push([ctx.job.attempts, ctx.job.error?.split("\n")[0]]);
        if (runs.length === 2) throw ctx.snooze(0);
        throw new Error(`run ${runs.length}`);
      },
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 2 });
    expect(await ended(job.key, 3)).toBe("Failed given");
    expect(runs).toEqual([
      [1, undefined],
      [2, "Error: run 1"],
      [2, undefined],
    ]);
    expect(await job.refresh()).toMatchObject({ status: "failed", attempts: 2, meta: { snoozes: 1 } });
  });

  it("lets the jobs that are due run first", async () => {
    const queue = openQueue(database, { given: () => null });
    const keys = [1, 2, 3].map((second) => `due in second ${second} of ${queue.name}`);
    for (const [index, key] of keys.entries())
      await queue.enqueue("given", undefined, { key, scheduled: index + 1 });
    const claimNext = async () => (await claim(queue, { limit: 1 }))[0];
    const first = await claimNext();
    if (!first) throw new Error("nothing was claimed");
    const fields = claimedFields(first, { queueName: queue.name, workerId: "worker-1" });
    const attempt = { claim: first, fields, awaited: false, durationMs: 1, hasUpdated: false };
    const rules = { nowMs: queue.broker.now(), failedTtl: 600, maxBytes: 1_024 };
    const snoozed = settlementOf(attempt, { kind: "snoozed", snooze: new Snooze(0) }, rules);
    if (!snoozed) throw new Error("nothing is to be stored");
    expect(await settle(queue, snoozed)).toBe("applied");
    expect([first, await claimNext(), await claimNext(), await claimNext()].map((job) => job?.key)).toEqual([
      ...keys,
      keys[0],
    ]);
  });

  it("is ignored after an abort was requested: the job is aborted", async () => {
    let begun: () => void = () => {};
    let throwNow: () => void = () => {};
    const [running, thrown] = [
      new Promise<void>((resolve) => {
        begun = resolve;
      }),
      new Promise<void>((resolve) => {
        throwNow = resolve;
      }),
    ];
    const queue = openQueue(
      database,
      {
        given: async (ctx: Context) => {
          begun();
          await thrown;
          throw ctx.snooze(0);
        },
      },
      // The worker does not look for aborts: on PostgreSQL its settlement finds the abort.
      { timers: { abort: 1_000 }, pollInterval: 0.1 },
    );
    const { ended, worker } = await startWorker(queue);
    const job = await queue.enqueue("given");
    await running;
    expect(await queue.abort(job.key, "enough")).toBe("aborting");
    throwNow();
    expect(await ended(job.key)).toBe("Aborted given");
    expect(await job.refresh()).toMatchObject({ status: "aborted", error: "enough", attempts: 1 });
    expect(worker.stats).toMatchObject({ aborted: 1, retried: 0 });
  });

  it("is ignored after the timeout: the attempt has failed", async () => {
    const queue = openQueue(database, {
      given: (ctx: Context) =>
        new Promise((_, reject) => ctx.signal.addEventListener("abort", () => reject(ctx.snooze(1)))),
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { timeout: 0.05 });
    expect(await ended(job.key)).toBe("Failed given");
    expect((await job.refresh()).error).toMatch(/^TimeoutError: timed out after 0.05 s/);
  });

  it.each([-1, Number.NaN, Number.POSITIVE_INFINITY, 31_622_401, "5", undefined, null])(
    "refuses %p, and the attempt has failed",
    async (seconds) => {
      const queue = openQueue(database, {
        given: (ctx: Context) => {
          throw ctx.snooze(seconds as number);
        },
      });
      const { ended } = await startWorker(queue);
      const job = await queue.enqueue("given");
      expect(await ended(job.key)).toBe("Failed given");
      expect((await job.refresh()).error).toContain(
        `InvalidJobError: ctx.snooze takes the seconds until the next run, a number of 0 to 31622400 (366 days), got ${
          typeof seconds === "string" ? 'the text "5"' : seconds
        }.`,
      );
    },
  );

  it.each([
    ["without a schema for the result", {}],
    ["also if a schema would accept it", { output: z.object({ rows: z.array(z.unknown()).optional() }) }],
  ])(
    "fails the job with a clear error if it is returned in place of being thrown, %s",
    async (_, options) => {
      const given = task({ ...options, run: async (ctx: Context): Promise<object> => ctx.snooze(60) });
      const queue = openQueue(database, { given });
      const { ended } = await startWorker(queue);
      const job = await queue.enqueue("given", undefined, { retries: 3 });
      expect(await ended(job.key)).toBe("Failed given");
      expect(await job.refresh()).toMatchObject({
        attempts: 1,
        error: "the task returned ctx.snooze(60), which has no effect; write: throw ctx.snooze(60)",
      });
    },
  );

  it("can be thrown by hooks, and passes through aroundProcess hooks", async () => {
    const seen: unknown[] = [];
    const queue = openQueue(
      database,
      { given: () => "done" },
      {
        beforeProcess: (ctx: Context) => {
          if (ctx.job.meta.snoozes === undefined) throw ctx.snooze(0);
        },
        aroundProcess: async (ctx: Context, next: () => Promise<unknown>) => {
          await next();
          if (ctx.job.meta.snoozes === 1) throw ctx.snooze(0);
          seen.push(ctx.job.meta.snoozes);
        },
      },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given");
    expect(await ended(job.key, 3)).toBe("Finished given");
    expect(seen).toEqual([2]);
    expect((await job.refresh()).attempts).toBe(1);
  });

  itNeeds(
    "groups",
    "a job of a group that waits does not keep the others of its group from running",
    async () => {
      const queue = openQueue(database, {
        poll: (ctx: Context) => {
          throw ctx.snooze(3_600);
        },
        work: () => "done",
      });
      const { ended } = await startWorker(queue);
      const options = { groupKey: "g", priority: 3 };
      const first = await queue.enqueue("poll", undefined, options);
      const second = await queue.enqueue("work", undefined, options);
      await Promise.all([ended(first.key), ended(second.key)]);
      expect(await rowOf(database, first.key)).toMatchObject({
        status: "queued",
        group_key: "g",
        priority: 3,
      });
      expect((await second.refresh()).status).toBe("complete");
    },
  );
});
