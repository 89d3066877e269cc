/** Rows that somebody's transaction holds, and that people and workers change. */
import { afterEach, describe, expect, it, jest } from "@jest/globals";
import pg from "pg";
import { SaqError } from "../../../templates/backend/saq/errors.js";
import { ConnectionPool } from "../../../templates/backend/saq/postgres/connection/pool.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import {
  claim,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { stepClock } from "../support/stepped-clock.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };

afterEach(() => {
  jest.restoreAllMocks();
});

describe("settlements of jobs whose rows another transaction holds", () => {
  it("are applied when that transaction ends, and until then no statement fails because of the lock", async () => {
    const queue = openQueue(database, tasks);
    await queue.enqueueMany(Array.from({ length: 60 }, () => ({ task: "hello" as const, payload: {} })));
    const claims = await claim(queue, { limit: 60 });
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where queue = $1 for update", [queue.name]);
    const failures: unknown[] = [];
    const query = pg.Client.prototype.query as (...values: unknown[]) => unknown;
    const watched = jest.spyOn(pg.Client.prototype, "query").mockImplementation(function (
      this: pg.Client,
      ...values
    ) {
      const answer = query.apply(this, values);
      if (answer instanceof Promise) answer.catch((error: unknown) => failures.push(error));
      return answer as never;
    });
    const ends = Promise.all(claims.map((job) => settle(queue, settlement(job, "complete"))));
    const looks = () =>
      watched.mock.calls.filter(([sent]) => JSON.stringify(sent).includes("saq_freeRows")).length;
    await until(async () => looks() >= 3);
    await other.query("rollback");
    expect(await ends).toEqual(claims.map(() => "applied"));
    expect(failures).toEqual([]);
    watched.mockRestore();
  }, 600_000);
});

describe("a heartbeat of a job whose row another transaction holds", () => {
  it("does not delay another heartbeat of its statement, even for a document that jsonb cannot hold", async () => {
    const queue = openQueue(database, tasks);
    await queue.enqueueMany([{ task: "hello" }, { task: "hello" }]);
    const [held, odd] = await claim(queue);
    if (!held || !odd) throw new Error("two jobs were not claimed");
    await database.query(
      `update saq_jobs set job = convert_to(regexp_replace(convert_from(job, 'UTF8'), '}$', ', "odd": NaN}'), 'UTF8')
       where key = $1`,
      [odd.key],
    );
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [held.key]);
    let isOver = false;
    const change = (job: typeof held) => ({ ...job, patch: '{"progress":0.5}', removed: [] });
    const touched = queue.broker.heartbeat([change(held), change(odd)]).finally(() => {
      isOver = true;
    });
    touched.catch(() => {});
    await until(
      async () => (await rowOf(database, odd.key))?.text.includes('"progress": 0.5') === true || isOver,
    );
    expect(isOver).toBe(false);
    await other.query("rollback");
    expect(await touched).toEqual([true, true]);
  }, 600_000);
});

describe("ctx.job.update of a job whose row another transaction holds", () => {
  it("rejects a new meta with job_held after 30 s, and the task goes on", async () => {
    let errors: unknown[] = [];
    let begin: () => void = () => {};
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    let update: () => void = () => {};
    const mayUpdate = new Promise<void>((resolve) => {
      update = resolve;
    });
    const queue = openQueue(database, {
      report: async ({ job }: Context) => {
        begin();
        await mayUpdate;
        errors = await job.update({ meta: { step: 2 } }).then(
          () => [],
          (error: unknown) => [error],
        );
      },
    });
    const { ended } = await startWorker(queue);
    const { key } = await queue.enqueue("report", undefined, { timeout: 0 });
    await begun;
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [key]);
    const { pass } = stepClock();
    update();
    const polls = jest.spyOn(ConnectionPool.prototype, "query");
    await until(async () => polls.mock.calls.some(([{ name }]) => name.includes("freeRows")));
    pass(31);
    await until(async () => errors.length > 0);
    await other.query("rollback");
    expect(errors).toEqual([expect.any(SaqError)]);
    expect(errors).toMatchObject([
      {
        code: "job_held",
        message:
          `Job "${key}" is held by a transaction that has been open for over 30 s; nothing was changed. ` +
          "Try again when that transaction has ended.",
      },
    ]);
    expect(await ended(key)).toBe("Finished report");
  }, 600_000);
});

describe("an abort of a job whose row another transaction holds", () => {
  it("does not block other calls when only one connection is free, and fails after 5 s with a reason", async () => {
    const queue = openQueue(database, tasks, { maxSize: 2 });
    const { key } = await queue.enqueue("hello");
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [key]);
    const began = performance.now();
    let isOver = false;
    const aborts = Promise.allSettled([1, 2, 3].map(() => queue.abort(key))).finally(() => {
      isOver = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await queue.enqueue("hello");
    expect(isOver).toBe(false);
    const ends = await aborts;
    expect(ends).toEqual(
      [1, 2, 3].map(() => ({
        status: "rejected",
        reason: expect.objectContaining({ code: "job_held", message: expect.stringContaining(key) }),
      })),
    );
    // One after the other, the aborts would take 15 s.
    expect(performance.now() - began).toBeLessThan(14_000);
    expect((await rowOf(database, key))?.status).toBe("queued");
    await other.query("rollback");
    expect(await queue.abort(key)).toBe("aborted");
  }, 600_000);

  it("succeeds when the row becomes free within 5 s", async () => {
    const queue = openQueue(database, tasks, { maxSize: 2 });
    const { key } = await queue.enqueue("hello");
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [key]);
    const aborted = queue.abort(key);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await other.query("rollback");
    expect(await aborted).toBe("aborted");
  });
});
