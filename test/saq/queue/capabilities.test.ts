/** A storage that cannot do everything: what it cannot do is refused where it is asked for, and never ignored. */
import { describe, expect, it } from "@jest/globals";
import type { Broker } from "../../../templates/backend/saq/broker.js";
import { defineQueue, type QueueOptions } from "../../../templates/backend/saq/config/index.js";
import type { Capabilities } from "../../../templates/backend/saq/core/capabilities.js";
import { ConfigError } from "../../../templates/backend/saq/errors.js";
import { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { closeAfterTest, openQueue, startWorker, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const none = {
  storage: "Shelf",
  transactions: false,
  push: false,
  groups: false,
  priorities: false,
  bulk: false,
};

const tasks = {
  hello: async () => "hi",
  finishes: async (ctx: { finish: (result: string, options: { client: never }) => Promise<string> }) =>
    ctx.finish("done", { client: {} as never }),
};

/** Returns a queue on a storage that stores as PostgreSQL does and declares fewer capabilities. */
function limited(declared: Partial<Capabilities> = {}, options: Partial<QueueOptions> = {}) {
  const { broker } = openQueue(database, tasks, { name: "limited" });
  const capabilities = { ...none, ...declared };
  const storage = new Proxy(broker, {
    get(target, name) {
      if (name === "capabilities") return capabilities;
      if (name === "enqueueMany" && !capabilities.bulk) throw new Error("Shelf has no call for many");
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  }) as Broker;
  const given = {
    name: "limited",
    dsn: database.url,
    eventLoopDelay: 0,
    pollInterval: 0.1,
    tasks,
    ...options,
  };
  const config = defineQueue(given as never);
  return closeAfterTest(new Queue(config, storage));
}

describe("a storage that lacks a capability", () => {
  it.each<[string, Partial<QueueOptions>, string]>([
    ["groupConcurrency", { groupConcurrency: 2 }, "groups of jobs (groupKey, groupConcurrency)"],
    ["priorities", { priorities: [1, 5] }, "priorities"],
    ["no pollInterval", { pollInterval: 0 }, "notifications"],
  ])("refuses the configuration: %s", (_name, options, words) => {
    expect(() => limited({}, options)).toThrow(
      new ConfigError(`defineQueue("limited"): Shelf has no ${words}. ${advice(words)}`),
    );
  });

  it.each<[string, object, string]>([
    ["groupKey", { groupKey: "g" }, "groups of jobs (groupKey, groupConcurrency)"],
    ["priority", { priority: 3 }, "priorities"],
    ["client", { client: {} }, "transactions (the option client, ctx.finish)"],
  ])("refuses an enqueue with %s and stores nothing", async (_name, options, words) => {
    const queue = limited();
    const enqueued = queue.enqueue("hello", undefined, options as never);
    await expect(enqueued).rejects.toThrow(
      new ConfigError(`enqueue("hello"): Shelf has no ${words}. ${advice(words)}`),
    );
    expect(await queue.count("incomplete")).toBe(0);
  });

  it("refuses a before-enqueue hook that sets a group", async () => {
    const queue = limited();
    queue.registerBeforeEnqueue((job) => {
      job.groupKey = "g";
    });
    await expect(queue.enqueue("hello")).rejects.toThrow("Shelf has no groups of jobs");
  });

  it("fails a task that calls ctx.finish", async () => {
    const queue = limited();
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("finishes");
    expect(await ended(job.key)).toBe("Failed finishes");
    await job.refresh();
    expect(job.error).toContain("ctx.finish: Shelf has no transactions");
  });

  it("stores many jobs one after another where it has no call for many", async () => {
    const queue = limited();
    const jobs = await queue.enqueueMany([{ task: "hello" }, { task: "hello" }]);
    expect(jobs.every((job) => job !== null)).toBe(true);
    expect(await queue.count("incomplete")).toBe(2);
  });

  it("stores and runs jobs that need nothing of it", async () => {
    const queue = limited({}, { priorities: [0, 5] });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("hello", undefined, { priority: 0 });
    expect(await ended(job.key)).toBe("Finished hello");
  });
});

const advices: Record<string, string> = {
  groups: "Leave groupKey and groupConcurrency out.",
  priorities: "Leave priority and priorities out, or use one queue per priority.",
  notifications: "Set pollInterval, for instance to 1.",
  transactions: "Store the job after your transaction has committed, and return the result from the task.",
};
const advice = (words: string): string => advices[words.split(" ")[0] ?? ""] ?? "";
