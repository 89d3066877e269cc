/** The lifecycle of a worker in this process: who starts it, what it notices, what it reports (W-4 to W-19, S-22). */
import { AsyncLocalStorage } from "node:async_hooks";
import { describe, expect, it, jest } from "@jest/globals";
import type { Broker } from "../../../templates/backend/saq/broker.js";
import { createSaq, defineQueue, defineSaq, runWorkers } from "../../../templates/backend/saq/index.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { Context, JobContext } from "../../../templates/backend/saq/tasks/task.js";
import { Worker } from "../../../templates/backend/saq/worker/index.js";
import { EventLoopMonitor } from "../../../templates/backend/saq/worker/maintenance/event-loop-monitor.js";
import { LogBook } from "../support/log-book.js";
import {
  closeAfterTest,
  editRow,
  insertRow,
  openQueue,
  pollInterval,
  rowOf,
  startWorker,
  until,
  useDatabase,
  workerRow,
} from "../support/scenario.js";
import { itOnOneRedis, itOnTables, itWithPush } from "../support/test-broker.js";

const database = useDatabase();

jest.setTimeout(600_000);

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const fired = ({ signal }: Context) =>
  new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));

/** A promise that resolves when the test calls `open`. */
function gate() {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

let apps = 0;

/** An application with one queue per entry. It has opened no connection yet. */
function app(
  queues: Record<string, { separateProcess?: boolean; burst?: boolean; startup?: () => unknown }>,
) {
  const prefix = `app${++apps}`;
  const log = new LogBook();
  const saq = createSaq(
    defineSaq({
      logger: log,
      queues: Object.entries(queues).map(([name, options]) =>
        defineQueue({
          name: `${prefix}${name}`,
          dsn: database.url,
          ...pollInterval,
          tasks: { nap: (_ctx: Context, { ms = 0 }: { ms?: number }) => pause(ms) },
          dequeueTimeout: 0.3,
          ...options,
        }),
      ),
    }),
  );
  closeAfterTest(saq);
  const queue = (name: string) => saq.taskQueues.get(`${prefix}${name}`);
  return { saq, log, queue, nameOf: (name: string) => `${prefix}${name}` };
}

describe("the start of a worker", () => {
  it("D-7: claims no job before the worker's row is stored, even after a notification", async () => {
    const queue = openQueue(database, { work: async () => "done" });
    const { open, opened } = gate();
    const claims = jest.spyOn(queue.broker, "claim");
    const beat = queue.broker.saveWorker.bind(queue.broker);
    jest.spyOn(queue.broker, "saveWorker").mockImplementationOnce(async (...row) => {
      await opened;
      await beat(...row);
    });
    const subscribed = jest.spyOn(queue.broker, "subscribe");
    const starting = startWorker(queue);
    await until(async () => subscribed.mock.results.length > 0);
    await subscribed.mock.results[0]?.value;
    const job = await queue.enqueue("work");
    await pause(300);
    expect(claims).not.toHaveBeenCalled();
    open();
    await (await starting).ended(job.key);
  });

  it("does not fail because of a connection error in the first look for grouped jobs", async () => {
    const queue = openQueue(database, { work: async () => "done" });
    const broken = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
    jest.spyOn(queue.broker, "hasGrouped").mockRejectedValueOnce(broken);
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("work");
    expect(await ended(job.key)).toBe("Finished work");
  });
});

describe("a worker that was never started", () => {
  it.each(["stop", "crash"] as const)(
    "resolves `finished` at its %s, and can be started afterwards, with a `finished` of its own",
    async (end) => {
      const queue = openQueue(database, { given: () => 1 });
      const worker = new Worker(queue as unknown as Queue);
      closeAfterTest({ close: () => worker.stop({ grace: 0 }) });
      const { finished } = worker;
      await worker[end]();
      await worker[end]();
      expect(await Promise.race([finished.then(() => "resolved"), pause(200)])).toBe("resolved");
      expect(worker.health.isRunning).toBe(false);

      await worker.start();
      let hasFinished = false;
      const secondFinished = worker.finished.then(() => {
        hasFinished = true;
      });
      const job = await queue.enqueue("given");
      expect((await job.refresh(60)).status).toBe("complete");
      expect(hasFinished).toBe(false);
      await worker.stop();
      await secondFinished;
    },
  );
});

describe("the process that runs a queue's worker", () => {
  it("S-22, D-78: with separateProcess false this process connects and runs the worker; close() waits for it", async () => {
    const { saq, queue, nameOf } = app({ inside: { separateProcess: false }, outside: {} });
    const listeners = ["SIGINT", "SIGTERM"].map((signal) => process.listenerCount(signal));
    const workers = await saq.startInProcessWorkers();
    expect(workers.map(({ queueName }) => queueName)).toEqual([nameOf("inside")]);
    expect(["SIGINT", "SIGTERM"].map((signal) => process.listenerCount(signal))).toEqual(listeners);
    const outside = await queue("outside").enqueue("nap");
    const inside = await queue("inside").enqueue("nap", { ms: 400 });
    // Wait until the job has begun: a claimed job that has not begun goes back to the queue.
    await until(async () => workers.some(({ runningKeys }) => runningKeys.includes(inside.key)));
    await saq.close();
    expect(await rowOf(database, inside.key)).toMatchObject({ status: "complete" });
    expect(await rowOf(database, outside.key)).toMatchObject({ status: "queued" });
  });

  it("S-22: runWorkers leaves the queue to the web process and logs this; W-18: it ends when its bursts end", async () => {
    const { saq, log, queue, nameOf } = app({
      inside: { separateProcess: false, burst: true },
      outside: { burst: true },
    });
    const inside = await queue("inside").enqueue("nap");
    const outside = await queue("outside").enqueue("nap");
    expect(await runWorkers(saq, { logger: log })).toBe(0);
    expect(await rowOf(database, outside.key)).toMatchObject({ status: "complete" });
    expect(await rowOf(database, inside.key)).toMatchObject({ status: "queued" });
    const left = log.lines.find(({ message }) => message.startsWith("not run in this process"));
    expect(left?.fields.queue).toBe(nameOf("inside"));
  });

  it("D-77: runWorkers runs only the named queues, and its error for an unknown name lists the known names", async () => {
    const { saq, log, queue, nameOf } = app({ a: { burst: true }, b: { burst: true } });
    await expect(runWorkers(saq, { logger: log, queues: [nameOf("c")] })).rejects.toMatchObject({
      code: "unknown_queue",
      message: expect.stringContaining(`(asked for "${nameOf("c")}", known: ${nameOf("a")}, ${nameOf("b")})`),
    });
    const [a, b] = [await queue("a").enqueue("nap"), await queue("b").enqueue("nap")];
    expect(await runWorkers(saq, { logger: log, queues: [nameOf("b")] })).toBe(0);
    expect(await rowOf(database, b.key)).toMatchObject({ status: "complete" });
    expect(await rowOf(database, a.key)).toMatchObject({ status: "queued" });
  });

  it("W-22: SIGBREAK (on Windows) stops it like the other signals, and the handler is removed at the end", async () => {
    const { saq, log } = app({ a: {} });
    const ended = runWorkers(saq, { logger: log });
    process.emit("SIGBREAK", "SIGBREAK");
    expect(await ended).toBe(0);
    expect(log.lines.find(({ message }) => message.startsWith("stopping:"))?.fields).toMatchObject({
      signal: "SIGBREAK",
    });
    expect(process.listenerCount("SIGBREAK")).toBe(0);
  });

  it("W-4: runWorkers returns 1 and logs the error when a start-up hook throws", async () => {
    const { saq, log } = app({
      good: {},
      bad: {
        startup: () => {
          throw new Error("no license");
        },
      },
    });
    expect(await runWorkers(saq, { logger: log })).toBe(1);
    const line = log.lines.find(({ message }) => message === "the worker could not start");
    expect(line?.fields.err).toMatchObject({ message: "no license" });
  });
});

describe("a running worker", () => {
  itWithPush(
    "W-14: notices an abort at once by its notification; the next check would come after an hour",
    async () => {
      const queue = openQueue(database, { wait: fired }, { timers: { abort: 3_600, sweep: 3_600 } });
      const { ended, log } = await startWorker(queue);
      const job = await queue.enqueue("wait", undefined, { timeout: 0 });
      await until(async () => (await job.refresh()).status === "active");
      await queue.abort(job.key, "enough");
      expect(await ended(job.key)).toBe("Aborted wait");
      expect(log.lines.some(({ message }) => message === `Aborting ${job.key}`)).toBe(true);
      expect(await job.refresh()).toMatchObject({ status: "aborted", error: "enough" });
    },
  );

  it("W-14: notices an abort by a check every timers.abort if it receives no notifications", async () => {
    const queue = openQueue(database, { wait: fired }, { pollInterval: 0.1, timers: { abort: 0.2 } });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("wait", undefined, { timeout: 0 });
    await until(async () => (await job.refresh()).status === "active");
    await queue.abort(job.key);
    expect(await ended(job.key)).toBe("Aborted wait");
  });

  it("W-14, T-61: waits for the clean-up of an aborted task, and a slow clean-up does not delay other aborts", async () => {
    const cleaned = gate();
    const queue = openQueue(
      database,
      {
        slow: async (ctx: Context) => {
          await fired(ctx);
          await cleaned.opened;
        },
        quick: fired,
      },
      { cancellationHardDeadline: 30 },
    );
    const { ended } = await startWorker(queue);
    const slow = await queue.enqueue("slow", undefined, { key: "cleaning", timeout: 0 });
    const quick = await queue.enqueue("quick", undefined, { timeout: 0 });
    await until(async () => (await queue.counts()).active === 2);
    await queue.abort("cleaning");
    await queue.abort(quick.key);
    expect(await ended(quick.key)).toBe("Aborted quick");
    expect((await rowOf(database, "cleaning"))?.status).toBe("aborting");
    expect(await queue.enqueue("slow", undefined, { key: "cleaning" })).toBeNull();
    cleaned.open();
    await ended("cleaning");
    expect((await slow?.refresh())?.status).toBe("aborted");
    expect(
      await queue.enqueue("slow", undefined, { key: "cleaning", scheduled: new Date("2100-01-01") }),
    ).not.toBeNull();
  });

  it("W-14, D-25: ends the job as aborted if the task's own heartbeat is the first to find the abort", async () => {
    const queue = openQueue(
      database,
      {
        beat: async (ctx: Context) => {
          while (!ctx.signal.aborted) {
            await ctx.job.update({});
            await pause(1);
          }
        },
      },
      // Neither a notification nor the worker's own look for aborts tells it of the abort.
      { pollInterval: 0.1, timers: { abort: 3_600 } },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("beat", undefined, { timeout: 0 });
    await until(async () => (await job.refresh()).status === "active");
    await queue.abort(job.key, "enough");
    expect(await ended(job.key)).toBe("Aborted beat");
    expect(await job.refresh()).toMatchObject({ status: "aborted", error: "enough" });
  });

  it("W-13: warns of a task that blocks the event loop, with the keys of its jobs and the time", async () => {
    const queue = openQueue(
      database,
      {
        block: () => {
          const end = Date.now() + 400;
          while (Date.now() < end);
        },
      },
      { eventLoopDelay: 0.2 },
    );
    const { log } = await startWorker(queue);
    const job = await queue.enqueue("block");
    // On a busy machine the event loop may be blocked for other reasons, too.
    const { level, fields, message } = await log.saw(
      (line) =>
        line.message.startsWith("The event loop was blocked") && String(line.fields.jobs).includes(job.key),
    );
    expect(level).toBe("warn");
    expect(fields.ms).toBeGreaterThanOrEqual(300);
    expect(message).toContain(`blocked for ${String(fields.ms)} ms`);
  });

  it("W-13: the monitor reports a block right after its start, pauses when no job runs, and can begin again", async () => {
    const log = new LogBook();
    const suspects = [["culprit"], [], ["other"], []];
    const worker = { takeRecentKeys: () => suspects.shift() ?? [], isResting: true };
    const monitor = new EventLoopMonitor(200, worker, log);
    for (const left of [2, 0]) {
      monitor.begin();
      const end = Date.now() + 400;
      while (Date.now() < end);
      await until(async () => suspects.length === left);
    }
    // A timer that still ran would fail this test: with no job the monitor pauses, and after `stop` it never begins again.
    monitor.stop();
    monitor.begin();
    expect(log.lines.map(({ fields }) => fields.jobs)).toEqual([["culprit"], ["other"]]);
  });

  it("D-7: finds a job whose notification comes during a claim, and a job stored before it listened", async () => {
    const queue = openQueue(database, { given: () => 1 }, { timers: { schedule: 3_600 } });
    const before = await queue.enqueue("given");
    const claim = queue.broker.claim.bind(queue.broker);
    const [asked, answer] = [gate(), gate()];
    const { ended } = await startWorker(queue);
    await ended(before.key);
    queue.broker.claim = async (request) => {
      const jobs = await claim(request);
      queue.broker.claim = claim;
      asked.open();
      // The database has answered the claim, but the worker has not received the response yet.
      await answer.opened;
      return jobs;
    };
    const first = await queue.enqueue("given");
    await asked.opened;
    const during = await queue.enqueue("given");
    await pause(100);
    answer.open();
    await ended(first.key);
    await ended(during.key);
  });
});

/** Records how many jobs each claim of this process asks for, from now on. */
function claimLimits({ broker }: { broker: Broker }): number[] {
  const asked: number[] = [];
  const claim = broker.claim.bind(broker);
  broker.claim = (request) => {
    asked.push(request.limit);
    return claim(request);
  };
  return asked;
}

describe("the number of jobs that a claim asks for", () => {
  it("is small while slots wait for the claim, and then grows to at most 2,000 short jobs ahead", async () => {
    const queue = openQueue(database, { given: () => 1 }, { concurrency: 10 });
    const total = 12_000;
    await queue.enqueueMany(Array.from({ length: total }, () => ({ task: "given" as const })));
    const asked = claimLimits(queue);
    await startWorker(queue);
    await until(async () => (await queue.counts()).complete === total);
    // At first nothing is known about the jobs. The next claim asks for an eighth of the jobs that may lie ahead.
    expect(asked[0]).toBe(10);
    expect(asked[1]).toBeLessThanOrEqual(10 + 2_000 / 8);
    expect(Math.max(...asked)).toBeGreaterThan(900);
    expect(Math.max(...asked)).toBeLessThanOrEqual(10 + 2_000);
  });

  it("is smaller when payloads are large", async () => {
    const given = (_ctx: unknown, _payload: { text: string }) => 1;
    const queue = openQueue(database, { given }, { concurrency: 10 });
    const text = "x".repeat(100_000);
    const total = 600;
    await queue.enqueueMany(
      Array.from({ length: total }, () => ({ task: "given" as const, payload: { text } })),
    );
    const asked = claimLimits(queue);
    await startWorker(queue);
    await until(async () => (await queue.counts()).complete === total);
    expect(Math.max(...asked)).toBeGreaterThan(10);
    expect(Math.max(...asked)).toBeLessThanOrEqual(10 + (16 * 1024 * 1024) / text.length);
  });
});

describe("the health, the row and the stop of a worker", () => {
  it("a stop gives back the jobs that were claimed ahead in their order", async () => {
    const started: string[] = [];
    const { open, opened } = gate();
    const queue = openQueue(
      database,
      {
        note: (ctx: Context) => void started.push(ctx.job.key),
        hold: (ctx: Context) => {
          started.push(ctx.job.key);
          return opened;
        },
      },
      { concurrency: 1, timers: { schedule: 600 } },
    );
    const { worker } = await startWorker(queue);
    // Short jobs come first, so that the worker claims ahead. Then a job holds the slot in front of a full buffer.
    const notes = () => queue.enqueueMany(Array.from({ length: 300 }, () => ({ task: "note" as const })));
    await notes();
    const held = await queue.enqueue("hold");
    const ahead = (await notes()).map((job) => String(job?.key));
    await until(async () => started.includes(held.key));
    await until(async () => (await queue.counts()).active > 100);
    const stopped = worker.stop();
    await until(async () => (await queue.counts()).active === 1);
    open();
    await stopped;
    await worker.start();
    await until(async () => started.length === 601);
    expect(started.slice(301)).toEqual(ahead);
  });

  itOnTables(
    "D-4: a claim that fails is logged once and tried again with pauses; health shows the reason",
    async () => {
      const queue = openQueue(database, { given: () => 1 });
      const { worker, log, ended } = await startWorker(queue);
      expect(worker.health).toEqual({
        isRunning: true,
        isFailing: false,
        lastError: null,
        hooks: { running: 0, waiting: 0, overdue: 0 },
      });
      let asked = 0;
      const claim = queue.broker.claim.bind(queue.broker);
      queue.broker.claim = (request) => {
        asked++;
        return claim(request);
      };
      await database.query(`
      create function no_claims() returns trigger language plpgsql as $$ begin raise 'no claims today'; end $$;
      create trigger no_claims before update of status on saq_jobs for each row
        when (old.status = 'queued' and new.status = 'active') execute function no_claims();`);
      const job = await queue.enqueue("given");
      try {
        const line = await log.saw(({ message }) => message === "could not claim jobs, trying again");
        expect(line.level).toBe("warn");
        await until(async () => asked >= 3);
        expect(worker.health).toMatchObject({
          isFailing: true,
          lastError: { message: "no claims today", at: expect.any(Date) },
        });
        const since = asked;
        await pause(500);
        expect(asked - since).toBeLessThan(6);
      } finally {
        await database.query("drop trigger no_claims on saq_jobs; drop function no_claims");
      }
      await ended(job.key);
      expect(worker.health).toMatchObject({ isFailing: false, lastError: { at: expect.any(Date) } });
      expect(
        log.lines.filter(({ level, message }) => level === "warn" && message.startsWith("could not claim")),
      ).toHaveLength(1);
      await worker.stop();
      expect(worker.health.isRunning).toBe(false);
    },
  );

  itOnOneRedis(
    "D-4: on Redis, a claim that fails is logged once and tried again; health shows the reason",
    async () => {
      const queue = openQueue(database, { given: () => 1 });
      const { worker, log, ended } = await startWorker(queue);
      // A list of another type: each claim fails until it is gone.
      const list = `saq:${queue.name}:queued`;
      await database.redis().set(list, "not a list");
      await log.saw(({ message }) => message === "could not claim jobs, trying again");
      expect(worker.health).toMatchObject({
        isFailing: true,
        lastError: { message: expect.stringContaining("WRONGTYPE"), at: expect.any(Date) },
      });
      await database.redis().del(list);
      const job = await queue.enqueue("given");
      expect(await ended(job.key)).toBe("Finished given");
      expect(worker.health.isFailing).toBe(false);
      expect(
        log.lines.filter(({ level, message }) => level === "warn" && message.startsWith("could not claim")),
      ).toHaveLength(1);
    },
  );

  itOnTables(
    "D-48, P-35, W-19: the row survives two failed refreshes, shows the metadata, and is deleted at the stop",
    async () => {
      const interval = 2;
      const queue = openQueue(
        database,
        { given: (ctx: Context) => ({ ...ctx.worker }) },
        { timers: { workerInfo: interval }, metadata: { region: "eu" } },
      );
      const [clock] = await database.query<{ now: number }>(
        "select floor(extract(epoch from now()))::float8 as now",
      );
      const { worker, ended } = await startWorker(queue);
      const stored = async () => {
        const [row] = await database.query<{ expires: number; metadata: unknown }>(
          "select expire_at::float8 as expires, metadata from saq_stats where worker_id = $1",
          [worker.workerId],
        );
        return row;
      };
      const first = await stored();
      expect(first?.metadata).toEqual({ region: "eu" });
      expect(first?.expires).toBeGreaterThanOrEqual((clock?.now ?? 0) + 3 * interval);
      const save = queue.broker.saveWorker.bind(queue.broker);
      const shown: unknown[] = [];
      queue.broker.saveWorker = async (...args) => {
        if (shown.length === 2) return save(...args);
        shown.push(await queue.workers());
        throw new Error("this refresh fails");
      };
      await until(async () => (await stored())?.expires !== first?.expires);
      const alive = [expect.objectContaining({ workerId: worker.workerId, metadata: { region: "eu" } })];
      expect(shown).toEqual([alive, alive]);
      expect((await stored())?.expires).toBeGreaterThan(first?.expires ?? 0);
      const job = await queue.enqueue("given");
      await ended(job.key);
      expect(await job.refresh()).toMatchObject({
        workerId: worker.workerId,
        result: { id: worker.workerId, concurrency: 10, metadata: { region: "eu" }, runningKeys: [job.key] },
      });
      await worker.stop();
      expect(await workerRow(database, queue, worker.workerId)).toBeUndefined();
    },
  );

  itOnTables(
    "D-43: a stop waits for a settlement that is being written, so that a finished job stays complete",
    async () => {
      const [started, goOn] = [gate(), gate()];
      const queue = openQueue(database, {
        given: async () => {
          started.open();
          await goOn.opened;
          return "done";
        },
      });
      const { worker, ended } = await startWorker(queue);
      const job = await queue.enqueue("given");
      await started.opened;
      const holder = await database.connect();
      await holder.query("begin");
      await holder.query("select 1 from saq_jobs where key = $1 for update", [job.key]);
      goOn.open();
      await until(async () => worker.runningKeys.length === 0);
      const stopped = worker.stop({ grace: 0 });
      await pause(300);
      await holder.query("rollback");
      await stopped;
      await ended(job.key);
      expect(await rowOf(database, job.key)).toMatchObject({ status: "complete" });
    },
  );
});

describe("a job whose task the worker does not know (D-41)", () => {
  it("unknownTask requeue: goes back for 5 s, no attempt counts, and a worker that knows the task runs it", async () => {
    const old = openQueue(database, { known: () => 1 }, { unknownTask: "requeue" });
    const fresh = openQueue(database, { added: (ctx: Context) => ctx.job.attempts }, { name: old.name });
    const { log, worker } = await startWorker(old);
    const job = await fresh.enqueue("added", undefined, { meta: { own: 1 } });
    const line = await log.saw(({ message }) =>
      message.startsWith('Unknown task "added": its job is given back'),
    );
    expect(line.fields).toMatchObject({ job: job.key, task: "added" });
    await until(async () => (await job.refresh()).meta.unknownTask === 1);
    expect(await job.refresh()).toMatchObject({
      status: "queued",
      attempts: 0,
      meta: { own: 1, unknownTask: 1 },
    });
    const due = Number((await rowOf(database, job.key))?.scheduled) - Date.now() / 1_000;
    expect(due).toBeGreaterThan(2);
    expect(due).toBeLessThan(7);
    await worker.stop();
    await editRow(database, job.key, { scheduled: 0 });
    const { ended } = await startWorker(fresh);
    await ended(job.key);
    expect(await job.refresh()).toMatchObject({ status: "complete", result: 1 });
  });

  it("unknownTask requeue: fails after it went back 60 times, even if attempts are left", async () => {
    const queue = openQueue(database, { known: () => 1 }, { unknownTask: "requeue" });
    const { ended } = await startWorker(queue);
    const document = {
      function: "gone",
      queue: queue.name,
      key: "gone-for-good",
      retries: 5,
      meta: { unknownTask: 60 },
    };
    await insertRow(database, {
      key: "gone-for-good",
      queue: queue.name,
      document: JSON.stringify(document),
      status: "queued",
      scheduled: 0,
    });
    expect(await ended("gone-for-good")).toBe("Failed gone");
    expect((await queue.job("gone-for-good"))?.error).toContain('Unknown task "gone" (registered: known)');
  });
});

it("T-63, W-10: hooks pass a correlation id from job to job, through apply, without code in the tasks", async () => {
  const correlation = new AsyncLocalStorage<string>();
  const seen: (string | undefined)[] = [];
  const child = (_ctx: Context) => {
    seen.push(correlation.getStore());
    return "child";
  };
  const parent = async (ctx: Context): Promise<unknown> => {
    seen.push(correlation.getStore());
    return ctx.apply(child);
  };
  const queue = openQueue(
    database,
    { parent, child },
    {
      beforeProcess: (ctx: JobContext) => correlation.enterWith(String(ctx.job.meta.correlation)),
    },
  );
  queue.registerBeforeEnqueue((job) => {
    job.meta.correlation = correlation.getStore() ?? "none";
  });
  await startWorker(queue);
  const answers = await Promise.all(
    ["a", "b"].map((id) => correlation.run(id, () => queue.apply("parent", undefined, { waitTimeout: 10 }))),
  );
  expect(answers).toEqual(["child", "child"]);
  expect(seen.sort()).toEqual(["a", "a", "b", "b"]);
});
