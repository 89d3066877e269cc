/** When an idle worker asks for jobs, and in which seconds it does nothing. */
import { describe, expect, it } from "@jest/globals";
import type { NextWork } from "../../../templates/backend/saq/broker.js";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { ProblemLog } from "../../../templates/backend/saq/problem-log.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { IdlePolling } from "../../../templates/backend/saq/worker/maintenance/idle-polling.js";
import { PeriodicTasks } from "../../../templates/backend/saq/worker/maintenance/periodic-tasks.js";
import type { Runner } from "../../../templates/backend/saq/worker/runner.js";
import {
  claim,
  insertRow,
  openQueue,
  rowOf,
  serverSeconds,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { itOnTables, onRedis } from "../support/test-broker.js";

const database = useDatabase();
const nothing: NextWork = { due: null, grouped: false, unannounced: false };
/** On Redis, scheduled jobs are announced to nobody. */
const idle: NextWork = { ...nothing, unannounced: onRedis };

/** An idle worker that notes what it did each second. The test sets what the broker returns and if it listens. */
function stage() {
  const state = { now: 1_000, isListening: true, isResting: true, nextWork: nothing as NextWork | Error };
  let did: string[] = [];
  const broker = {
    now: () => state.now * 1_000,
    nextWork: async () => {
      did.push("look");
      const { nextWork } = state;
      if (nextWork instanceof Error) throw nextWork;
      return nextWork;
    },
    get isListening() {
      return state.isListening;
    },
  };
  const runner = {
    tick: async () => void did.push("claim"),
    wake: () => did.push("wake"),
    get isResting() {
      return state.isResting;
    },
  };
  const queue = { broker, config: { priorities: [0, 10] } } as unknown as Queue;
  const rest = new IdlePolling(queue, runner as unknown as Runner);
  const seconds = async (count: number) => {
    const each: string[] = [];
    for (let second = 0; second < count; second++) {
      did = [];
      await rest.tick();
      state.now++;
      each.push(did.join(" ") || "-");
    }
    return each;
  };
  return { rest, state, seconds, did: () => did };
}

describe("idle polling", () => {
  it("looks for jobs every 5 s while no job waits or runs", async () => {
    const { seconds } = stage();
    expect(await seconds(11)).toEqual(["look", "-", "-", "-", "-", "look", "-", "-", "-", "-", "look"]);
  });

  it("claims at the second when a known job is due, and looks again in time for a job that is due later", async () => {
    const { state, seconds } = stage();
    state.nextWork = { ...nothing, due: 1_003 };
    expect(await seconds(4)).toEqual(["look", "-", "-", "claim"]);
    state.nextWork = { ...nothing, due: 1_012 };
    expect(await seconds(5)).toEqual(["look", "-", "-", "-", "-"]);
    expect(await seconds(4)).toEqual(["look", "-", "-", "claim"]);
  });

  it("looks every second while jobs run elsewhere, because Python does not notify when it gives jobs back", async () => {
    const { state, seconds } = stage();
    state.nextWork = { ...nothing, unannounced: true };
    expect(await seconds(3)).toEqual(["look", "look", "look"]);
  });

  it("claims every second while a job is due or waits in a group, and while the worker has work", async () => {
    const { state, seconds } = stage();
    state.nextWork = { ...nothing, due: 999 };
    expect(await seconds(2)).toEqual(["look claim", "look claim"]);
    state.nextWork = { ...nothing, grouped: true };
    expect(await seconds(2)).toEqual(["look claim", "look claim"]);
    state.isResting = false;
    expect(await seconds(2)).toEqual(["claim", "claim"]);
  });

  it("D-7: looks again at the next second after a notification, even if it came during a look", async () => {
    const { rest, state, seconds } = stage();
    expect(await seconds(2)).toEqual(["look", "-"]);
    rest.wake();
    expect(await seconds(2)).toEqual(["look", "-"]);
    state.now += 5;
    const looking = rest.tick();
    rest.wake();
    await looking;
    expect(await seconds(2)).toEqual(["look", "-"]);
  });

  it("P-19: looks every second while it cannot receive notifications", async () => {
    const { state, seconds } = stage();
    state.isListening = false;
    expect(await seconds(3)).toEqual(["look", "look", "look"]);
  });

  it("D-4: causes a claim when a look fails, so that the claim reports the problem", async () => {
    const { rest, state, did } = stage();
    state.nextWork = new Error("away");
    await expect(rest.tick()).rejects.toThrow("away");
    expect(did()).toEqual(["look", "wake"]);
  });
});

describe("periodic tasks with a notBefore time", () => {
  it("do not run before that time or while it is infinite, and resume() continues each only once", async () => {
    const rounds: string[] = [];
    const began = Date.now();
    let isResting = true;
    const periodicTasks = new PeriodicTasks(
      [
        {
          name: "later",
          every: 0.05,
          alignedTo: () => Date.now(),
          notBefore: () => began + 200,
          run: async () => rounds.push(`later ${Date.now() >= began + 200}`),
        },
        {
          name: "at work",
          every: 0.05,
          notBefore: () => (isResting ? Number.POSITIVE_INFINITY : 0),
          run: async () => rounds.push("at work"),
        },
      ],
      new ProblemLog(silentLogger),
    );
    periodicTasks.start();
    await until(async () => rounds.length === 2);
    expect(rounds).toEqual(["later true", "later true"]);
    isResting = false;
    periodicTasks.resume();
    periodicTasks.resume();
    await until(async () => rounds.includes("at work"));
    periodicTasks.resume();
    isResting = true;
    rounds.splice(0);
    await until(async () => rounds.length > 5);
    expect(rounds.filter((round) => round === "at work").length).toBeLessThan(2);
    await periodicTasks.stop();
  });
});

describe("idle polling of a database", () => {
  const tasks = { work: (_ctx: unknown, _payload?: object) => "done" };
  const open = (options: object = {}) => openQueue(database, tasks, options);

  it("nextWork returns the first due second, and whether jobs run", async () => {
    const queue = open();
    await queue.connect();
    const nextWork = () => queue.broker.nextWork(queue.config.priorities);
    expect(await nextWork()).toEqual(idle);
    await queue.enqueue("work", {}, { scheduled: inSeconds(900) });
    const sooner = await queue.enqueue("work", {}, { scheduled: inSeconds(500) });
    expect(await nextWork()).toEqual({ ...idle, due: sooner.scheduled });
    const now = await queue.enqueue("work");
    expect((await nextWork()).due).toBeLessThanOrEqual(await serverSeconds(database));
    expect((await claim(queue)).map(({ key }) => key)).toEqual([now.key]);
    expect(await nextWork()).toEqual({ ...idle, due: sooner.scheduled, unannounced: true });
  });

  itOnTables(
    "nextWork returns the first due second within the priorities, and whether jobs wait in groups or run",
    async () => {
      const queue = open();
      await queue.connect();
      const nextWork = () => queue.broker.nextWork([0, 5]);
      expect(await nextWork()).toEqual(nothing);
      const later = await queue.enqueue("work", {}, { scheduled: inSeconds(500), priority: 1 });
      await queue.enqueue("work", {}, { scheduled: inSeconds(900), priority: 0 });
      await queue.enqueue("work", {}, { scheduled: inSeconds(100), priority: 6 });
      expect(await nextWork()).toEqual({ ...nothing, due: (await rowOf(database, later.key))?.scheduled });
      await queue.enqueue("work", {}, { groupKey: "g" });
      expect(await nextWork()).toMatchObject({ grouped: true, unannounced: false });
      await database.query("update saq_jobs set status = 'active' where group_key = 'g'");
      expect(await nextWork()).toMatchObject({ grouped: false, unannounced: true });
    },
  );

  it("P-11: a job that is due in 3 s starts on time, although nothing is due when it is stored", async () => {
    const queue = open();
    const { ended, worker } = await startWorker(queue);
    expect(worker.runningKeys).toEqual([]);
    // Without a notification, an idle worker finds a job up to 5 s later. On a busy machine a single try may be late.
    const late: number[] = [];
    do {
      const job = await queue.enqueue("work", {}, { scheduled: inSeconds(3) });
      await ended(job.key);
      late.push((await job.refresh()).started / 1_000 - job.scheduled);
    } while (Math.min(...late) >= 1 && late.length < 5);
    expect(Math.min(...late)).toBeLessThan(1);
  });

  it("P-19: a row that is inserted by hand is found without a notification", async () => {
    const queue = open();
    const { ended } = await startWorker(queue);
    await insertRow(database, {
      key: "silent",
      queue: queue.name,
      scheduled: 0,
      document: JSON.stringify({ function: "work", queue: queue.name, key: "silent", status: "queued" }),
    });
    expect(await ended("silent")).toMatch(/^Finished/);
  });
});
