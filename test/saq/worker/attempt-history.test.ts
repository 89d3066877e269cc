/** The history of failed attempts: when it is written, and who can read it. */
import { describe, expect, it } from "@jest/globals";
import type { ClaimedJob } from "../../../templates/backend/saq/core/claim.js";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { pythonComplaints } from "../support/golden-documents.js";
import {
  claim,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  useDatabase,
} from "../support/scenario.js";
import { itOnTables } from "../support/test-broker.js";

const database = useDatabase();

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe("job.history", () => {
  it("has the failed attempts with their times, workers, durations and errors; a success adds nothing", async () => {
    const seen: unknown[] = [];
    const queue = openQueue(database, {
      given: async (ctx: Context) => {
        seen.push(ctx.job.history.map(({ attempt }) => attempt));
        await ctx.job.update({ meta: { step: ctx.job.attempts } });
        await sleep(20);
        if (ctx.job.attempts < 3) throw new TypeError(`run ${ctx.job.attempts} ${"x".repeat(2_000)}`);
      },
    });
    const { ended, worker } = await startWorker(queue);
    const before = Math.floor(queue.broker.now());
    const job = await queue.enqueue("given", undefined, { retries: 3, meta: { step: 0 } });
    expect(await ended(job.key, 3)).toBe("Finished given");
    const after = Math.ceil(queue.broker.now());
    const { history, meta } = await job.refresh();
    expect(seen).toEqual([[], [1], [1, 2]]);
    expect(history.map(({ attempt, workerId }) => [attempt, workerId])).toEqual([
      [1, worker.workerId],
      [2, worker.workerId],
    ]);
    for (const { time, duration, error, attempt } of history) {
      expect(time).toBeGreaterThanOrEqual(before);
      expect(time).toBeLessThanOrEqual(after);
      expect(duration).toBeGreaterThanOrEqual(19);
      expect(duration).toBeLessThanOrEqual(after - before);
      expect(error).toMatch(new RegExp(`^TypeError: run ${attempt} x+$`));
      expect(Buffer.byteLength(error)).toBe(1_024);
    }
    expect(meta).toEqual({ step: 3, attemptHistory: history });
    expect(pythonComplaints((await rowOf(database, job.key))?.text ?? "", queue.name)).toEqual([]);
  });

  it("has the last failure and a timeout; a retry by hand keeps them, and a new enqueue does not", async () => {
    const queue = openQueue(database, {
      given: ({ signal, job }: Context) => {
        if (job.attempts === 2) throw new Error("boom");
        return new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    });
    const { ended, worker } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 2, timeout: 0.05 });
    expect(await ended(job.key, 2)).toBe("Failed given");
    const errors = async () =>
      (await job.refresh()).history.map(({ attempt, error }) => [attempt, error.split("\n")[0]]);
    const first = [
      [1, "TimeoutError: timed out after 0.05 s"],
      [2, "Error: boom"],
    ];
    expect(await errors()).toEqual(first);
    await queue.retry(job.key);
    expect(await ended(job.key, 4)).toBe("Failed given");
    expect(await errors()).toEqual([...first, ...first]);
    await worker.stop();
    await job.enqueue({ scheduled: inSeconds(60) });
    expect(await errors()).toEqual([]);
  });

  it("is not written by a job that succeeds, is aborted, or is stopped or snoozed", async () => {
    let begun: () => void = () => {};
    const queue = openQueue(database, {
      works: () => "done",
      waits: ({ signal }: Context) => {
        begun();
        return new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
      polls: ({ job, snooze }: Context) => {
        if (job.meta.snoozes === undefined) throw snooze(0);
      },
    });
    const { ended, worker } = await startWorker(queue);
    const start = async () => {
      const running = new Promise<void>((resolve) => {
        begun = resolve;
      });
      const job = await queue.enqueue("waits");
      await running;
      return job;
    };
    const works = await queue.enqueue("works");
    const polls = await queue.enqueue("polls");
    await Promise.all([ended(works.key), ended(polls.key, 2)]);
    const aborted = await start();
    await queue.abort(aborted.key);
    await ended(aborted.key);
    const stopped = await start();
    await worker.stop({ grace: 0 });
    await ended(stopped.key);
    for (const { key } of [works, polls, aborted, stopped])
      expect((await rowOf(database, key))?.text).not.toContain("attemptHistory");
  });

  it("has the runs whose worker died, also the last one", async () => {
    const queue = openQueue(database, { given: () => "done" });
    const job = await queue.enqueue("given", undefined, { timeout: 600 });
    const lose = async (lostLimit: number): Promise<void> => {
      const [claimed] = await claim(queue);
      if (!claimed) throw new Error("nothing was claimed");
      await queue.broker.recordLost([claimed], { lostLimit, failedTtl: 600 });
    };
    await lose(3);
    expect(await job.refresh()).toMatchObject({ status: "queued", attempts: 0 });
    await lose(1);
    expect(await job.refresh()).toMatchObject({ status: "failed", attempts: 1 });
    expect(job.history).toEqual([
      {
        time: expect.any(Number),
        attempt: 1,
        workerId: "worker-1",
        duration: expect.any(Number),
        error: "worker lost",
      },
      expect.objectContaining({ attempt: 1, error: expect.stringMatching(/^worker lost: 2 workers died/) }),
    ]);
    expect(job.history[1]?.time).toBeGreaterThanOrEqual(job.queued);
    expect(job.history[1]?.duration).toBeLessThan(60_000);
  });

  it("has no run whose worker died if meta has no room for it", async () => {
    const queue = openQueue(database, { given: () => "done" }, { maxBytes: 1_024 });
    const meta = { text: "x".repeat(950) };
    const job = await queue.enqueue("given", undefined, { timeout: 600, meta });
    const [claimed] = await claim(queue);
    if (!claimed) throw new Error("nothing was claimed");
    await queue.broker.recordLost([claimed], { lostLimit: 3, failedTtl: 600 });
    expect(await job.refresh()).toMatchObject({ status: "queued", error: "worker lost" });
    expect(job.meta).toEqual({ ...meta, lost: 1 });
  });

  it("has a run that queue.finish ended as failed", async () => {
    const queue = openQueue(database, { given: () => "done" });
    for (const [status, errors] of [
      ["failed", ["no"]],
      ["complete", []],
      ["aborted", []],
    ] as const) {
      const job = await queue.enqueue("given");
      await claim(queue);
      expect(await queue.finish(job.key, status, { error: "no" })).toBe("finished");
      expect((await job.refresh()).history.map(({ error }) => error)).toEqual(errors);
    }
  });

  it("does not have the previous attempt's error, if queue.finish gives none", async () => {
    const queue = openQueue(database, { given: () => "done" });
    const job = await queue.enqueue("given", undefined, { retries: 2 });
    const [first] = await claim(queue);
    await settle(queue, settlement(first as ClaimedJob, "queued", { error: "boom" }));
    await claim(queue);
    expect(await queue.finish(job.key, "failed")).toBe("finished");
    expect((await job.refresh()).history.map(({ error }) => error)).toEqual(["failed"]);
  });

  it("does not make meta larger than maxBytes, and is not the reason why a job or an update fails", async () => {
    const seen: number[][] = [];
    const queue = openQueue(
      database,
      {
        given: async (ctx: Context) => {
          seen.push(ctx.job.history.map(({ attempt }) => attempt));
          if (ctx.job.attempts === 3) await ctx.job.update({ meta: { text: "x".repeat(1_900) } });
          // Each entry has more than a thousand bytes.
          throw new Error("y".repeat(1_000));
        },
      },
      { maxBytes: 2_000 },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 3, meta: { text: "x".repeat(300) } });
    expect(await ended(job.key, 3)).toBe("Failed given");
    expect(seen).toEqual([[], [1], [2]]);
    expect(await job.refresh()).toMatchObject({
      status: "failed",
      meta: { text: "x".repeat(1_900) },
      history: [],
    });
    expect(job.error).toMatch(/^Error: y{1000}\n/);

    const once = await queue.enqueue("given");
    await ended(once.key);
    expect((await once.refresh()).history).toHaveLength(1);
    expect(await once.update({ meta: { text: "x".repeat(800) } })).toBe("updated");
    expect((await once.refresh()).history).toHaveLength(1);
    expect(await once.update({ meta: { text: "x".repeat(1_900) } })).toBe("updated");
    expect((await once.refresh()).meta).toEqual({ text: "x".repeat(1_900) });
  });

  it("reads what others have written there, and replaces it at the next failure", async () => {
    const queue = openQueue(database, {
      given: () => {
        throw new Error("boom");
      },
    });
    const job = await queue.enqueue("given", undefined, {
      meta: { attemptHistory: { not: "a list" }, own: 1 },
    });
    expect((await queue.job(job.key))?.history).toEqual([]);
    const { ended } = await startWorker(queue);
    await ended(job.key);
    expect((await job.refresh()).history).toHaveLength(1);
    expect(job.meta.own).toBe(1);
  });

  itOnTables("adds no row write: a job that fails is written twice after its enqueue", async () => {
    const queue = openQueue(database, {
      given: () => {
        throw new Error("boom");
      },
    });
    await queue.connect();
    await database.query("create table writes (key text)");
    await database.query(`create function note_write() returns trigger language plpgsql as $$ begin
      insert into writes values (new.key); return new; end $$`);
    await database.query(
      "create trigger note_write after update on saq_jobs for each row execute function note_write()",
    );
    const { ended } = await startWorker(queue);
    const { key } = await queue.enqueue("given");
    expect(await ended(key)).toBe("Failed given");
    const writes = await database.query("select 1 from writes where key = $1", [key]);
    await database.query("drop trigger note_write on saq_jobs");
    expect(writes).toHaveLength(2);
    expect((await queue.job(key))?.history).toHaveLength(1);
  });
});
