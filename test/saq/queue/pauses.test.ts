/** Pausing a queue, its tasks and its groups: what the calls accept, store and return. */
import { describe, expect, it } from "@jest/globals";
import {
  ConfigError,
  createSaq,
  defineQueue,
  defineSaq,
  InvalidJobError,
  type PauseOptions,
  Queue,
  SaqError,
} from "../../../templates/backend/saq/index.js";
import {
  closeAfterTest,
  openQueue,
  pollInterval,
  serverSeconds,
  until,
  useDatabase,
} from "../support/scenario.js";
import { itNeeds } from "../support/test-broker.js";

const database = useDatabase();
const tasks = { work: () => "done", other: () => "done" };
const open = (options: object = {}) => openQueue(database, tasks, options);

const nothing = { task: null, group: null, until: null, by: null, reason: null };
const now = async () => (await serverSeconds(database)) * 1_000;

describe("queue.pause, queue.resume and queue.pauses", () => {
  it("pause the whole queue until resume, for every process, and not another queue", async () => {
    const queue = open();
    const peer = open({ name: queue.name });
    const other = open();
    expect(await queue.pauses()).toEqual([]);
    const before = await now();
    const pause = await queue.pause();
    expect(pause).toEqual({ ...nothing, since: expect.any(Number) });
    expect(pause.since).toBeGreaterThanOrEqual(before);
    expect(pause.since).toBeLessThan(before + 60_000);
    expect(await peer.pauses()).toEqual([pause]);
    expect(await other.pauses()).toEqual([]);
    expect(await other.resume()).toBe(false);
    expect(await peer.resume()).toBe(true);
    expect(await queue.resume()).toBe(false);
    expect(await queue.pauses()).toEqual([]);
  });

  it("store for how long, who and why, by the clock of the server", async () => {
    const queue = open();
    const by = "ann@büro 'x' \"y\"";
    const reason = "move\nof the 漢字 database";
    const pause = await queue.pause({ task: "work", seconds: 90.5, by, reason });
    expect(pause).toEqual({
      ...nothing,
      task: "work",
      since: expect.any(Number),
      until: pause.since + 90_500,
      by,
      reason,
    });
    expect(await queue.pauses()).toEqual([pause]);
  });

  it("a second pause of the same replaces the first one", async () => {
    const queue = open();
    await queue.pause({ seconds: 60, by: "ann", reason: "first" });
    await queue.pause({ task: "work" });
    const second = await queue.pause({ by: "bob" });
    expect(second).toMatchObject({ until: null, by: "bob", reason: null });
    expect(await queue.pauses()).toMatchObject([{ task: null, by: "bob" }, { task: "work" }]);
    expect(await queue.resume()).toBe(true);
    expect(await queue.pauses()).toMatchObject([{ task: "work" }]);
  });

  it("a pause with seconds ends by itself, and is forgotten at the next pause", async () => {
    const queue = open();
    await queue.pause({ seconds: 0.2 });
    await until(async () => (await queue.pauses()).length === 0);
    expect(await queue.resume()).toBe(false);
    await queue.pause({ task: "other", seconds: 0.1 });
    await until(async () => (await queue.pauses()).length === 0);
    await queue.pause({ task: "work" });
    expect(await queue.pauses()).toMatchObject([{ task: "work" }]);
  });

  itNeeds(
    "groups",
    "pause a group; the list has the queue first, then tasks, then groups by name",
    async () => {
      const queue = open();
      await queue.pause({ group: "customer 7" });
      await queue.pause({ group: "a" });
      await queue.pause({ task: "work" });
      await queue.pause({ task: "other" });
      await queue.pause();
      expect((await queue.pauses()).map(({ task, group }) => [task, group])).toEqual([
        [null, null],
        ["other", null],
        ["work", null],
        [null, "a"],
        [null, "customer 7"],
      ]);
      expect(await queue.resume({ group: "customer 7" })).toBe(true);
      expect(await queue.resume({ group: "customer 7" })).toBe(false);
    },
  );

  itNeeds("groups", "resume of a group", async () => {
    expect(await open().resume({ group: "g" })).toBe(false);
  });

  it("refuse a task that the queue does not have, and list its tasks", async () => {
    const queue = open();
    const message =
      `there is no task wrok of queue ${queue.name} (known tasks: work, other). ` +
      "Choose one of these, or leave task out for the whole queue";
    for (const call of ["pause", "resume"] as const) {
      const refused = queue[call]({ task: "wrok" as "work" });
      await expect(refused).rejects.toThrow(SaqError);
      await expect(refused).rejects.toMatchObject({ code: "unknown_task", message: `${call}: ${message}` });
    }
    expect(await queue.pauses()).toEqual([]);
  });

  it("accept any task in a queue that does not know its tasks, and resume a task that was removed since", async () => {
    const queue = open();
    const foreign = closeAfterTest(Queue.fromUrl(database.url, { name: queue.name, ...pollInterval }));
    await foreign.pause({ task: "removed" });
    expect(await queue.pauses()).toMatchObject([{ task: "removed" }]);
    expect(await queue.resume({ task: "removed" })).toBe(true);
    expect(await foreign.resume({ task: "removed" })).toBe(false);
  });

  it.each<[object, string]>([
    [
      { seconds: 0 },
      "pause: seconds must be a number of more than 0 and at most 10000000000, got 0. Leave it out",
    ],
    [{ seconds: -1 }, "got -1"],
    [{ seconds: Number.NaN }, "pause: seconds must be a number of more than 0"],
    [{ seconds: "60" }, 'got "60"'],
    [{ task: "work", group: "g" }, 'task and group cannot be combined, got task "work" and group "g"'],
    [{ task: "" }, 'pause: task must be a text of 1 to 2000 bytes without a NUL, got ""'],
    [{ task: 5 }, "pause: task must be a text of 1 to 2000 bytes without a NUL, got 5"],
    [{ by: "x".repeat(201) }, "pause: by must be a text of at most 200 characters without a NUL"],
    [{ reason: "a\0b" }, "pause: reason must be a text of at most 1000 characters without a NUL"],
    [{ queue: "x" }, "pause: there is no option queue (known: task, group, seconds, by, reason)"],
  ])("refuse %j", async (options, message) => {
    const queue = open();
    const refused = queue.pause(options as PauseOptions<"work">);
    await expect(refused).rejects.toThrow(InvalidJobError);
    await expect(refused).rejects.toThrow(message);
    expect(await queue.pauses()).toEqual([]);
  });

  it("reject with queue_closed after close", async () => {
    const queue = open();
    await queue.pause();
    await queue.resume();
    await queue.close();
    for (const call of [() => queue.pause(), () => queue.resume(), () => queue.pauses()])
      await expect(call()).rejects.toMatchObject({ code: "queue_closed" });
  });
});

it("queue.info and saq.health show what is paused", async () => {
  const { name } = open();
  const config = defineQueue({ name, dsn: database.url, tasks, ...pollInterval });
  const saq = closeAfterTest(createSaq(defineSaq({ queues: [config] })));
  const queue = saq.taskQueues.get(name);
  expect((await queue.info()).paused).toEqual([]);
  const pause = await queue.pause({ task: "work", by: "ann" });
  expect((await queue.info()).paused).toEqual([pause]);
  expect(await saq.health()).toEqual({ workers: 0, queues: [{ name, workers: 0, paused: [pause] }] });
});

it("a storage without groups refuses their pause and says what to do instead", async () => {
  const queue = open();
  const broker = Object.assign(Object.create(queue.broker) as typeof queue.broker, {
    capabilities: { ...queue.broker.capabilities, storage: "Shelf", groups: false },
  });
  const limited = new Queue(queue.config, broker);
  await expect(limited.pause({ group: "g" })).rejects.toThrow(
    new ConfigError(
      'pause({ group: "g" }): Shelf has no groups of jobs (groupKey, groupConcurrency). ' +
        "Leave group out to pause the whole queue, or name a task.",
    ),
  );
});
