/** The tracing channels of `node:diagnostics_channel`: which messages they publish, and in which order. */
import { AsyncLocalStorage } from "node:async_hooks";
import { tracingChannel } from "node:diagnostics_channel";
import { afterEach, describe, expect, it } from "@jest/globals";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { openQueue, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();

type Name = "enqueue" | "process" | "claim" | "settle";
type Message = { queue: string; result?: unknown; error?: unknown } & Record<string, unknown>;

const eventNames = ["start", "end", "asyncStart", "asyncEnd", "error"] as const;
const unsubscribers: (() => void)[] = [];
afterEach(() => {
  for (const unsubscribe of unsubscribers.splice(0)) unsubscribe();
});

/** Subscribes to a channel until the end of the test. Returns the events of one queue, as they come. */
function record(name: Name, queueName: string) {
  const events: { event: string; message: Message }[] = [];
  const channel = tracingChannel<unknown, Message>(`saq:${name}`);
  const handlers = Object.fromEntries(
    eventNames.map((event) => [
      event,
      (message: Message) => void (message.queue === queueName && events.push({ event, message })),
    ]),
  ) as unknown as Parameters<typeof channel.subscribe>[0];
  channel.subscribe(handlers);
  unsubscribers.push(() => channel.unsubscribe(handlers));
  return events;
}

const namesOf = (events: readonly { event: string }[]) => events.map(({ event }) => event);

const tasks = {
  given: (_ctx: unknown, { n }: { n: number }) => n * 2,
  bad: () => {
    throw new Error("boom");
  },
};

describe("saq:enqueue", () => {
  it("publishes one message for each call, with the keys of the jobs and why a job was refused", async () => {
    const queue = openQueue(database, tasks);
    const events = record("enqueue", queue.name);
    await queue.enqueue("given", { n: 1 }, { key: "once" });
    await queue.enqueue("given", { n: 1 }, { key: "once" });
    const jobs = await queue.enqueueMany([{ task: "given", payload: { n: 2 } }, { task: "bad" }]);
    expect(namesOf(events)).toEqual(Array(3).fill(["start", "end", "asyncStart", "asyncEnd"]).flat());
    const messages = events.flatMap(({ event, message }) => (event === "asyncEnd" ? [message] : []));
    expect(messages).toEqual([
      {
        queue: queue.name,
        jobs: [{ task: "given", payload: { n: 1 }, options: { key: "once" } }],
        result: [{ key: "once", refused: null }],
      },
      expect.objectContaining({ result: [{ key: "once", refused: "key_alive" }] }),
      {
        queue: queue.name,
        jobs: [
          { task: "given", payload: { n: 2 }, options: {} },
          { task: "bad", payload: undefined, options: {} },
        ],
        result: jobs.map((job) => ({ key: job?.key, refused: null })),
      },
    ]);
  });

  it("publishes the error of a call, and the caller gets the same error", async () => {
    const queue = openQueue(database, tasks);
    const events = record("enqueue", queue.name);
    const error = await queue
      .enqueue("given", { n: 1n as unknown as number })
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "invalid_job" });
    expect(namesOf(events)).toEqual(["start", "end", "error", "asyncStart", "asyncEnd"]);
    expect(events[0]?.message.error).toBe(error);
  });

  it("publishes calls inside of a batch, and apply and map", async () => {
    const queue = openQueue(database, tasks);
    await startWorker(queue);
    const events = record("enqueue", queue.name);
    await queue.batch(async () => {
      await queue.enqueue("given", { n: 1 });
      await queue.enqueueMany([{ task: "given", payload: { n: 1 } }]);
    });
    expect(await queue.apply("given", { n: 2 })).toBe(4);
    expect(await queue.map("given", [{ n: 3 }, { n: 4 }])).toEqual([6, 8]);
    const sizes = events.flatMap(({ event, message }) =>
      event === "start" ? [(message.jobs as unknown[]).length] : [],
    );
    expect(sizes).toEqual([1, 1, 1, 2]);
  });
});

describe("saq:process", () => {
  it("publishes each attempt with its job, its result and its error", async () => {
    const queue = openQueue(database, tasks);
    const events = record("process", queue.name);
    const { ended, worker } = await startWorker(queue);
    const good = await queue.enqueue("given", { n: 4 });
    await ended(good.key);
    const bad = await queue.enqueue("bad", undefined, { retries: 2 });
    await ended(bad.key, 2);
    const failed = ["start", "end", "error", "asyncStart", "asyncEnd"];
    expect(namesOf(events)).toEqual(["start", "end", "asyncStart", "asyncEnd", ...failed, ...failed]);
    const [first] = events.map(({ message }) => message);
    expect(first).toMatchObject({ queue: queue.name, workerId: worker.workerId, result: 8 });
    expect(first?.job).toMatchObject({ id: good.key, function: "given", attempts: 1 });
    expect(events.at(-1)?.message.error).toMatchObject({ message: "boom" });
  });

  it("publishes a snooze neither as a result nor as an error, and the job runs again", async () => {
    const queue = openQueue(database, {
      polls: ({ job, snooze }: Context) => {
        if (job.meta.snoozes === undefined) throw snooze(0);
        return "ready";
      },
    });
    const events = record("process", queue.name);
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("polls");
    expect(await ended(job.key, 2)).toBe("Finished polls");
    const ends = events.flatMap(({ event, message }) => (event === "asyncEnd" ? [message] : []));
    expect(namesOf(events)).toEqual(Array(2).fill(["start", "end", "asyncStart", "asyncEnd"]).flat());
    expect(ends.map(({ result, error }) => [result, error])).toEqual([
      [undefined, undefined],
      ["ready", undefined],
    ]);
  });

  it("a task and its hooks run inside of a store that is bound to the channel", async () => {
    const store = new AsyncLocalStorage<string>();
    const channel = tracingChannel<string, Message & { job: { key: string } }>("saq:process");
    channel.start.bindStore(store, ({ job }) => `of ${job.key}`);
    unsubscribers.push(() => channel.start.unbindStore(store));
    const seen: unknown[] = [];
    const queue = openQueue(
      database,
      {
        look: async () => {
          await new Promise((resolve) => setTimeout(resolve, 2));
          return store.getStore() ?? null;
        },
      },
      { beforeProcess: () => void seen.push(store.getStore()) },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("look");
    await ended(job.key);
    expect((await job.refresh()).result).toBe(`of ${job.key}`);
    expect(seen).toEqual([`of ${job.key}`]);
  });

  it("publishes nothing for a job that is claimed before a slot is free, until its task starts", async () => {
    const open: (() => void)[] = [];
    const queue = openQueue(
      database,
      {
        quick: () => null,
        waits: () => new Promise<void>((resolve) => open.push(resolve)),
      },
      { concurrency: 1 },
    );
    const { worker } = await startWorker(queue);
    // Short jobs first: a worker claims ahead only when it has measured how long jobs take.
    await queue.map(
      "quick",
      Array.from({ length: 20 }, () => undefined),
    );
    const claims = record("claim", queue.name);
    const runs = record("process", queue.name);
    await queue.enqueueMany(Array.from({ length: 5 }, () => ({ task: "waits" as const })));
    const claimed = () =>
      claims.flatMap(({ message, event }) => (event === "asyncEnd" ? message.result : []));
    await until(async () => claimed().length > 1 && open.length === 1);
    expect(namesOf(runs)).toEqual(["start", "end"]);
    void worker.stop({ grace: 0 });
    for (const end of open) end();
  });
});

describe("saq:claim and saq:settle", () => {
  it("publish the keys that were claimed, and how each job was settled", async () => {
    const queue = openQueue(database, tasks);
    const claims = record("claim", queue.name);
    const settlements = record("settle", queue.name);
    const { ended, worker } = await startWorker(queue);
    const good = await queue.enqueue("given", { n: 4 });
    await ended(good.key);
    const bad = await queue.enqueue("bad");
    await ended(bad.key);
    const claimed = claims.flatMap(({ event, message }) => (event === "asyncEnd" ? message.result : []));
    expect(claimed).toEqual([good.key, bad.key]);
    expect(claims[0]?.message).toMatchObject({ workerId: worker.workerId, grouped: false });
    const { workerId } = worker;
    const common = { queue: queue.name, workerId, started: true, result: "applied" };
    expect(settlements.flatMap(({ event, message }) => (event === "asyncEnd" ? [message] : []))).toEqual([
      { ...common, key: good.key, task: "given", status: "complete" },
      { ...common, key: bad.key, task: "bad", status: "failed" },
    ]);
  });

  it("publish that a job was given back without having been started, and that another end came first", async () => {
    let release: () => void = () => {};
    const queue = openQueue(
      database,
      {
        waits: async ({ signal: _ }: Context) => {
          await new Promise<void>((resolve) => {
            release = resolve;
          });
        },
      },
      // No look for aborted jobs before the end of the test: the settlement itself finds the abort.
      { timers: { abort: 1_000 }, concurrency: 1, pollInterval: 0.1 },
    );
    const settlements = record("settle", queue.name);
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("waits");
    await until(async () => (await job.refresh()).status === "active");
    await queue.abort(job.key);
    release();
    await ended(job.key);
    expect(settlements.at(-1)?.message).toMatchObject({
      status: "complete",
      result: "aborted",
      started: true,
    });
  });
});
