/** A database that accepts no results, or is unreachable: what a worker holds back, and what it logs. */
import { beforeAll, describe, expect, it } from "@jest/globals";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { openProxy } from "../support/cuttable-proxy.js";
import { LogBook } from "../support/log-book.js";
import { openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";
import { itOnPostgres } from "../support/test-broker.js";

const database = useDatabase();

/** A promise that resolves when the test calls `open`. */
function gate() {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

beforeAll(async () => {
  const queue = openQueue(database, {});
  await queue.connect();
  await queue.close();
});

itOnPostgres.each([
  ["about 4,000 small results", "small", 6_000, 4_000, 0],
  ["64 MiB of large results", "large", 500, (64 * 1024 * 1024) / 200_000, 200_000],
])(
  "a worker that cannot store results starts no more jobs after %s, and goes on when it can store them",
  async (_what, kind, total, most, length) => {
    let runs = 0;
    const result = "x".repeat(length);
    const count = () => {
      runs++;
      return result;
    };
    // On a busy machine some claims are renewed, and the results of these jobs are sent in a statement of their own. Both
    // statements wait in the trigger: of three connections, the default, none would be left to claim more jobs.
    const options = { name: `held-results-${kind}`, concurrency: 10, maxSize: 8 };
    const queue = openQueue(database, { count }, options);
    await queue.enqueueMany(
      Array.from({ length: total }, () => ({ task: "count" as const, payload: undefined, timeout: 0 })),
    );
    await database.query(`
      create function hold_results() returns trigger language plpgsql as
        $$ begin perform pg_advisory_xact_lock(4711); return new; end $$;
      create trigger hold_results before update on saq_jobs for each row
        when (old.status = 'active' and new.status = 'complete') execute function hold_results();`);
    const holder = await database.connect();
    await holder.query("select pg_advisory_lock(4711)");
    await startWorker(queue);
    await until(async () => runs >= most);
    // In this time the worker has looked for more jobs and sent its sign of life, several times.
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    expect(runs).toBeLessThanOrEqual(most + 10 + 1);
    await holder.query("select pg_advisory_unlock(4711)");
    await until(async () => (await queue.counts()).complete === total);
    expect(runs).toBe(total);
    await database.query("drop trigger hold_results on saq_jobs; drop function hold_results");
  },
  120_000,
);

it("an outage is logged once at its start and once at its end, without a stack, for all parts of a worker", async () => {
  const proxy = await openProxy(database);
  const log = new LogBook();
  const timers = { schedule: 0.1, workerInfo: 0.1, lost: 0.1, sweep: 0.1, abort: 0.1 };
  const queue = openQueue({ url: proxy.url }, { ok: () => "ok" }, { name: "outage", timers, logger: log });
  const { ended, log: workerLog } = await startWorker(queue);
  proxy.refuse();
  // Each of these sources fails at least twice before the outage is over.
  for (const source of ["heartbeat", "lost", "sweep", "claim"])
    for (const round of [1, 2])
      await until(
        async () => workerLog.lines.filter(({ fields }) => fields.source === source).length >= round,
      );
  proxy.admit();
  await log.saw(({ message }) => message.startsWith("over after"));
  const job = await queue.enqueue("ok");
  expect(await ended(job.key)).toBe("Finished ok");
  const troubles = [...log.lines, ...workerLog.lines].filter(
    ({ level, message }) => level === "warn" || level === "error" || message.startsWith("over after"),
  );
  expect(troubles).toEqual([
    {
      level: "warn",
      message: expect.any(String),
      fields: expect.objectContaining({ reason: expect.any(String) }),
    },
    {
      level: "info",
      message: `over after ${troubles[1]?.fields.seconds} s: ${troubles[0]?.message}`,
      fields: { seconds: expect.any(Number) },
    },
  ]);
}, 600_000);

itOnPostgres(
  "a missing table is logged once for all that need it, without a stack, and once more when it is back",
  async () => {
    const timers = { schedule: 0.1, workerInfo: 0.1, lost: 0.1, sweep: 0.1, abort: 0.1 };
    const queue = openQueue(database, { ok: () => "ok" }, { name: "no-table", timers });
    const { log, ended } = await startWorker(queue);
    await database.query("alter table saq_jobs rename to saq_jobs_away");
    for (const source of ["sweep", "claim", "schedule"])
      await until(async () => log.lines.some(({ fields }) => fields.source === source));
    await database.query("alter table saq_jobs_away rename to saq_jobs");
    await log.saw(({ message }) => message.startsWith("over after"));
    const job = await queue.enqueue("ok");
    expect(await ended(job.key)).toBe("Finished ok");
    const warnings = log.lines.filter(({ level }) => level === "warn" || level === "error");
    expect(warnings).toHaveLength(1);
    expect(warnings[0]?.fields).toMatchObject({ reason: expect.stringContaining("tables are missing") });
    expect(warnings[0]?.fields).not.toHaveProperty("err");
  },
  600_000,
);

describe("ctx.job.update while the database is unreachable", () => {
  // These workers hold a lock. One with a lease gives its jobs up in an outage of this length, as other workers may run
  // them: behind a pooler, and on Redis.
  itOnPostgres(
    "a progress update returns at once and is stored later; a meta update waits for the database",
    async () => {
      const proxy = await openProxy(database);
      const [away, told, back, seen] = [gate(), gate(), gate(), gate()];
      const failures: unknown[] = [];
      const works = async (ctx: Context) => {
        await ctx.job.update({ progress: 0.25 });
        away.open();
        await told.opened;
        const stored = ctx.job.update({ meta: { step: 2 } }).catch((error: unknown) => failures.push(error));
        for (const progress of [0.5, 0.6, 0.75])
          await ctx.job.update({ progress }).catch((error: unknown) => failures.push(error));
        back.open();
        await stored;
        await seen.opened;
        return "done";
      };
      const queue = openQueue(proxy, { works }, { defaults: { timeout: 60 } });
      const { ended } = await startWorker(queue);
      const job = await queue.enqueue("works");
      await away.opened;
      proxy.refuse();
      told.open();
      await back.opened;
      // Longer than any other statement waits for an unreachable database.
      await new Promise((resolve) => setTimeout(resolve, 10_000));
      proxy.admit();
      await until(async () => {
        const { progress, meta } = JSON.parse((await rowOf(database, job.key))?.text ?? "{}");
        return progress === 0.75 && meta?.step === 2;
      });
      seen.open();
      expect(await ended(job.key)).toBe("Finished works");
      expect(failures).toEqual([]);
      expect(await job.refresh()).toMatchObject({ status: "complete", result: "done", attempts: 1 });
    },
    600_000,
  );

  itOnPostgres(
    "a wait for the database ends when the attempt is interrupted",
    async () => {
      const proxy = await openProxy(database);
      const [away, told] = [gate(), gate()];
      const works = async (ctx: Context) => {
        away.open();
        await told.opened;
        await ctx.job.update({ meta: { step: 2 } });
        throw ctx.signal.reason;
      };
      const options = { defaults: { timeout: 3 }, cancellationHardDeadline: 60 };
      const queue = openQueue(proxy, { works }, options);
      const { worker, ended } = await startWorker(queue);
      const job = await queue.enqueue("works");
      await away.opened;
      proxy.refuse();
      told.open();
      // This must happen long before the hard deadline.
      await until(async () => worker.runningKeys.length === 0);
      proxy.admit();
      expect(await ended(job.key)).toBe("Failed works");
      expect((await job.refresh()).error).toMatch(/^TimeoutError: timed out after 3 s/);
    },
    600_000,
  );
});
