/** Events of jobs on the queue's own channel: settlements that somebody waits for, and aborts. */
import { expect } from "@jest/globals";
import type { JobEvent } from "../../../templates/backend/saq/broker.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { TaskMap } from "../../../templates/backend/saq/tasks/task.js";
import { openProxy } from "../support/cuttable-proxy.js";
import {
  claim,
  insertRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { can, itOnPostgres, itOnTables, itWithProxy, itWithPush } from "../support/test-broker.js";

const database = useDatabase();
const tasks = { work: async () => "done" };

/** Returns the list of events that a follower has received. It grows for as long as the queue is open. */
async function eventsOf<Tasks extends TaskMap>({ broker }: Queue<Tasks>) {
  const events: (JobEvent | null)[] = [];
  await broker.onJobEvents((event) => events.push(event));
  return events;
}

/** Triggers an event that arrives after all that were sent before it, waits for it, and removes it from the list. */
async function fence(queue: Queue<typeof tasks>, events: (JobEvent | null)[]): Promise<void> {
  const job = await queue.enqueue("work");
  await queue.abort(job.key);
  await until(async () => events.some((event) => event?.key === job.key));
  events.splice(events.findIndex((event) => event?.key === job.key));
}

itWithPush("a settlement notifies other processes of awaited ends only", async () => {
  const queue = openQueue(database, tasks);
  const peer = openQueue(database, tasks, { name: queue.name });
  const events = await eventsOf(peer);
  await queue.enqueueMany([
    { task: "work", key: "awaited", meta: { awaited: true } },
    { task: "work", key: "gone", meta: { awaited: true }, ttl: -1 },
    { task: "work", key: "again", meta: { awaited: true } },
    { task: "work", key: "alone" },
  ]);
  const claims = await claim(queue);
  expect(claims).toHaveLength(4);
  const results = await Promise.all(
    claims.map((job) =>
      settle(
        queue,
        job.key === "again"
          ? settlement(job, "queued", {}, { awaited: true })
          : settlement(
              job,
              job.key === "gone" ? "failed" : "complete",
              {},
              { awaited: job.key !== "alone", keep: job.key === "gone" ? -1 : 600 },
            ),
      ),
    ),
  );
  expect(results).toEqual(["applied", "applied", "applied", "applied"]);
  await fence(peer, events);
  expect(events).toHaveLength(2);
  expect(events).toContainEqual({ key: "awaited", status: "complete" });
  expect(events).toContainEqual({ key: "gone", status: "failed" });
});

itWithPush(
  "a worker notifies others of the end of an awaited job, even when the task replaced its meta",
  async () => {
    const queue = openQueue(database, {
      forget: async (ctx: { job: { update(change: { meta: Record<string, unknown> }): Promise<void> } }) => {
        await ctx.job.update({ meta: { mine: 1 } });
      },
    });
    const events = await eventsOf(queue);
    await startWorker(queue);
    await queue.enqueue("forget", undefined, { key: "a b", meta: { awaited: true } });
    await until(async () => events.length > 0);
    expect(events).toEqual([{ key: "a b", status: "complete" }]);
  },
);

itWithPush("the abort of a waiting or running job sends one notification", async () => {
  const queue = openQueue(database, tasks);
  const events = await eventsOf(queue);
  await queue.enqueue("work", undefined, { key: "running" });
  await claim(queue);
  await queue.enqueue("work", undefined, { key: "waiting" });
  await queue.abort("running");
  await queue.abort("waiting");
  await queue.abort("waiting");
  await fence(queue, events);
  expect(events).toEqual([
    { key: "running", status: "aborting" },
    { key: "waiting", status: "aborted" },
  ]);
});

itOnPostgres(
  "P-21: a key that is too long for a notification prevents neither settlement nor abort",
  async () => {
    const queue = openQueue(database, tasks);
    const key = "k".repeat(9_000);
    await queue.connect();
    await insertRow(database, {
      key,
      queue: queue.name,
      document: JSON.stringify({ function: "work", key, queue: queue.name, meta: { awaited: true } }),
    });
    await insertRow(database, {
      key: `${key}!`,
      queue: queue.name,
      document: JSON.stringify({ function: "work", key: `${key}!`, queue: queue.name }),
    });
    const events = await eventsOf(queue);
    const [first, second] = await claim(queue);
    if (!first || !second) throw new Error("two were claimed");
    expect(await settle(queue, settlement(first, "complete", {}, { awaited: true }))).toBe("applied");
    expect(await queue.abort(second.key)).toBe("aborting");
    expect((await rowOf(database, first.key))?.status).toBe("complete");
    await fence(queue, events);
    expect(events).toEqual([]);
  },
);

(can("push") ? itWithProxy : itWithPush)(
  "D-69: a listener receives null after a reconnect, which means that it must read the rows",
  async () => {
    const proxy = await openProxy(database);
    const queue = openQueue(proxy, tasks);
    const events = await eventsOf(queue);
    proxy.cut();
    await until(async () => events.length > 0);
    expect(events).toEqual([null]);
    await fence(queue, events);
  },
);

itWithPush(
  "D-69: two listeners that start at once are both ready only after the server listens",
  async () => {
    const queue = openQueue(database, tasks);
    await queue.connect();
    const told: string[] = [];
    await Promise.all(
      ["first", "second"].map(async (name) => {
        await queue.broker.onJobEvents((event) => told.push(`${name} ${event?.key}`));
        await database.stored.publish(queue.name, name, "complete");
      }),
    );
    await until(async () => told.length >= 3);
    expect(told).toContain("first first");
    expect(told).toContain("second second");
  },
);

itOnTables("P-22: behind a pooler listeners receive no events, and no LISTEN is sent", async () => {
  const queue = openQueue(database, tasks, { pollInterval: 0.1 });
  const events = await eventsOf(queue);
  const job = await queue.enqueue("work");
  await queue.abort(job.key);
  expect(
    await database.query(
      "select 1 from pg_stat_activity where datname = current_database() and query ilike 'listen%'",
    ),
  ).toEqual([]);
  expect(events).toEqual([]);
});
