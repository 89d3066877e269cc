/** What the broker of this run cannot do: it says so, and refuses it where it is asked for. */
import { describe, expect, it } from "@jest/globals";
import { defineQueue } from "../../../templates/backend/saq/config/index.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { openQueue, startWorker, useDatabase } from "../support/scenario.js";
import { can, expectedCapabilities, expectRefusal, itNeeds, testBroker } from "../support/test-broker.js";

const database = useDatabase();
const client = { query: async () => ({ rows: [] }) };
const tasks = {
  hello: (_ctx: unknown, _payload?: object) => "hi",
  finishes: (ctx: Context) => ctx.finish("done", { client }),
};
const open = (options: object = {}) => openQueue(database, tasks, options);

it("the broker declares what it can do", () => {
  const { capabilities } = open().broker;
  expect(capabilities).toEqual(expectedCapabilities(capabilities));
});

describe(`on ${testBroker.storage}`, () => {
  itNeeds("priorities", "a queue for some priorities", async () => open({ priorities: [1, 5] }));

  itNeeds("groups", "a queue with groupConcurrency", async () => open({ groupConcurrency: 2 }));

  it("a queue that names the default priorities and groupConcurrency can be opened", async () => {
    expect(await open({ priorities: [0, 32_767], groupConcurrency: 1 }).count("queued")).toBe(0);
  });

  itNeeds("priorities", "an enqueue with a priority, alone and among others", async () => {
    const queue = open();
    await queue.enqueue("hello", {}, { priority: 1 });
    await queue.enqueueMany([{ task: "hello" }, { task: "hello", priority: 1 }]);
  });

  itNeeds("groups", "an enqueue with a groupKey", async () => {
    await open().enqueue("hello", {}, { groupKey: "g" });
  });

  it("a refused enqueue stores nothing, whichever call refuses it", async () => {
    if (can("priorities") && can("groups") && can("transactions")) return;
    const queue = open();
    queue.registerBeforeEnqueue((job) => {
      if (job.meta.hook) job.groupKey = "g";
    });
    const prepared = queue.prepare("hello", {});
    const refused: [Parameters<typeof expectRefusal>[0], () => unknown][] = [
      ["priorities", () => queue.enqueue("hello", {}, { priority: 1 })],
      ["priorities", () => queue.enqueueDetailed("hello", {}, { priority: -1 })],
      ["priorities", () => queue.enqueueMany([{ task: "hello" }, { task: "hello", priority: 1 }])],
      ["priorities", () => queue.apply("hello", {}, { priority: 1 })],
      ["priorities", () => queue.map("hello", [{}, {}], { priority: 1 })],
      ["priorities", () => queue.enqueue(prepared, { priority: 1 })],
      ["groups", () => queue.enqueue("hello", {}, { groupKey: "g" })],
      ["groups", () => queue.enqueue("hello", {}, { meta: { hook: true } })],
      ["transactions", () => queue.enqueue("hello", {}, { client })],
    ];
    for (const [capability, call] of refused) await expectRefusal(capability, call);
    expect(await queue.count("incomplete")).toBe(0);
  });

  it("ctx.finish works in a transaction, or fails the task with the reason", async () => {
    if (can("transactions")) return;
    const queue = open();
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("finishes");
    expect(await ended(job.key)).toBe("Failed finishes");
    expect((await job.refresh()).error).toContain("ctx.finish: Redis has no transactions");
  });

  it("options that mean nothing to the broker are accepted", async () => {
    const given = { minSize: 0, maxSize: 7, lockKeyspace: 5, name: "sized", dsn: database.url, tasks };
    expect(defineQueue(given)).toMatchObject({ minSize: 0, maxSize: 7 });
    expect(await open({ minSize: 0, maxSize: 7, lockKeyspace: 5 }).count("queued")).toBe(0);
  });
});
