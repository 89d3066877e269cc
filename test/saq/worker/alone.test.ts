/** Jobs whose workers died: which jobs count as started, and how a job that may be the cause runs alone. */

import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import type { Receipt } from "../../../templates/backend/saq/core/claim.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { AloneGate, type AloneJob } from "../../../templates/backend/saq/worker/alone-gate.js";
import { AloneJobs } from "../../../templates/backend/saq/worker/alone-jobs.js";
import type { Attempt } from "../../../templates/backend/saq/worker/attempt/attempt.js";
import type { Report } from "../../../templates/backend/saq/worker/settlement/report.js";
import { Settler } from "../../../templates/backend/saq/worker/settlement/settler.js";
import {
  claim,
  editRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { stepClock } from "../support/stepped-clock.js";
import { can, itNeeds, itOnTables } from "../support/test-broker.js";

const database = useDatabase();
const limits = { graceSeconds: 5, lostLimit: 3, checkInterval: 2, failedTtl: 600 };

beforeAll(async () => {
  const queue = openQueue(database, {});
  await queue.connect();
  await queue.close();
});
afterEach(() => {
  jest.restoreAllMocks();
  jest.useRealTimers();
});

/** The `meta` of a job without its history of failed attempts. */
async function metaOf(key: string): Promise<unknown> {
  const { meta } = JSON.parse((await rowOf(database, key))?.text ?? "{}") as {
    meta?: Record<string, unknown>;
  };
  const { attemptHistory: _, ...others } = meta ?? {};
  return others;
}
const groupOf = async (key: string) => (await rowOf(database, key))?.group_key;

/** Makes the job look as if `times` workers had died while they ran it. */
async function lose(queue: Queue, key: string, times: number): Promise<void> {
  for (let lost = 0; lost < times; lost++) {
    const jobs = [
      ...(await claim(queue, { limit: 100 })),
      ...(can("groups") ? await claim(queue, { limit: 100, grouped: true }) : []),
    ];
    const mine = jobs.find((job) => job.key === key);
    if (!mine) throw new Error(`${key} was not claimed`);
    await queue.broker.recordLost([mine], limits);
    for (const other of jobs)
      if (other !== mine) await settle(queue, settlement(other, "queued", {}, { charge: -1 }));
  }
}

describe("a job that was lost twice", () => {
  it("runs while no other job runs in its process, in any queue; the other jobs go on afterwards", async () => {
    let running = 0;
    const beside: number[] = [];
    const work = async () => {
      running++;
      await sleep(30);
      running--;
    };
    const suspect = async () => {
      beside.push(running);
      await sleep(100);
      beside.push(running);
    };
    const [one, two] = [openQueue(database, { work, suspect }), openQueue(database, { work })];
    for (const key of ["suspect1", "suspect2"]) {
      await one.enqueue("suspect", undefined, { key });
      await lose(one as unknown as Queue, key, 2);
      expect(await metaOf(key)).toEqual({ lost: 2 });
    }
    const jobs = 60;
    for (const queue of [one, two])
      await queue.enqueueMany(Array.from({ length: jobs }, () => ({ task: "work" as const })));
    const workers = [await startWorker(one), await startWorker(two)];
    await until(async () => (await one.counts()).complete === jobs + 2);
    await until(async () => (await two.counts()).complete === jobs);
    expect(beside).toEqual([0, 0, 0, 0]);
    expect(workers[0]?.log.lines.filter(({ message }) => message.includes("runs alone"))).toHaveLength(2);
  }, 120_000);

  // Only groups keep such jobs of several processes apart.
  itOnTables(
    "never runs at the same time as another such job, and is a normal job after a retry by hand",
    async () => {
      const [one, two] = [1, 2].map(() => openQueue(database, { work: () => 1 }, { name: "shared" }));
      if (!one || !two) throw new Error("no queues");
      for (const key of ["first", "second"]) {
        await one.enqueue("work", undefined, { key });
        await lose(one as unknown as Queue, key, 2);
      }
      expect(await claim(one, { limit: 10 })).toEqual([]);
      const [mine, ...others] = await claim(one, { limit: 10, grouped: true });
      expect(others).toEqual([]);
      expect(["first", "second"]).toContain(mine?.key);
      const last = mine?.key === "first" ? "second" : "first";
      expect(await claim(two, { limit: 10, grouped: true })).toEqual([]);
      if (!mine) throw new Error("nothing was claimed");
      await settle(one, settlement(mine, "complete"));
      const [next] = await claim(two, { limit: 10, grouped: true });
      expect(next?.key).toBe(last);
      if (!next) throw new Error("nothing was claimed");
      for (let lost = 3; lost <= 4; lost++) {
        const [again = next] = await claim(two, { grouped: true });
        await two.broker.recordLost([again], limits);
      }
      const row = await rowOf(database, last);
      expect(row?.status).toBe("failed");
      expect(JSON.parse(row?.text ?? "")).toMatchObject({
        error: "worker lost: 4 workers died while they ran this job, the last 2 of them while it ran alone",
      });
      expect(await groupOf(last)).toBe("saq:alone");
      expect(await two.retry(last)).toBe("queued");
      expect(await groupOf(last)).toBeNull();
      expect((await claim(two)).map(({ key }) => key)).toEqual([last]);
    },
  );

  itNeeds("groups", "keeps its own group", async () => {
    const queue = openQueue(database, { work: () => 1 });
    await queue.enqueue("work", undefined, { key: "grouped", groupKey: "g" });
    await lose(queue as unknown as Queue, "grouped", 2);
    expect(await groupOf("grouped")).toBe("g");
  });
});

describe("a job that waits to run alone", () => {
  /**
   * Starts a worker that runs one job (`neighbour`), and has a second job that waits to run alone until the first ends.
   */
  async function waiting(suspect: (ctx: { job: { key: string } }) => unknown) {
    let end: () => void = () => {};
    const neighbour = () =>
      new Promise<void>((resolve) => {
        end = resolve;
      });
    const queue = openQueue(database, { neighbour, suspect, other: () => 1 });
    const { log, ended } = await startWorker(queue);
    await queue.enqueue("neighbour");
    await log.saw(({ message }) => message === "Processing neighbour");
    const { key } = await queue.enqueue("suspect", undefined, { meta: { lost: 2 }, timeout: 10 });
    await log.saw(({ message, fields }) => fields.job === key && message.includes("runs alone"));
    return { queue, key, ended, endNeighbour: () => end() };
  }

  it("is claimed again when it starts, so that the time of its wait does not make it look stuck", async () => {
    let ageSeconds = Number.NaN;
    const { key, ended, endNeighbour } = await waiting(async ({ job }) => {
      const { started } = JSON.parse((await rowOf(database, job.key))?.text ?? "") as { started: number };
      ageSeconds = (await database.stored.now()) - started / 1_000;
    });
    const started = Math.floor(((await database.stored.now()) - 3_600) * 1_000);
    await editRow(database, key, { members: { started } });
    endNeighbour();
    expect(await ended(key)).toBe("Finished suspect");
    expect(ageSeconds).toBeLessThan(1_800);
  });

  it("does not start if another worker took it over during the wait", async () => {
    const runs: string[] = [];
    const { queue, key, ended, endNeighbour } = await waiting(({ job }) => runs.push(job.key));
    await database.stored.takeOver(key);
    endNeighbour();
    const { key: other } = await queue.enqueue("other");
    expect(await ended(other)).toBe("Finished other");
    expect(runs).toEqual([]);
    expect((await rowOf(database, key))?.status).toBe("active");
  });
});

describe("the jobs that a dead worker had claimed", () => {
  it("count as lost only if they had started: a claim for a free slot or a stored heartbeat shows this", async () => {
    const queue = openQueue(database, { work: () => 1 });
    await queue.connect();
    const workerId = queue.broker.newWorkerId();
    const stats = { complete: 0, failed: 0, retried: 0, aborted: 0, uptime: 0 };
    const clock = stepClock();
    /**
     * Claims the jobs `keys` as that worker, stores a heartbeat for each job of `touched`, and lets the worker die.
     * Returns each job's `meta` after the job was taken over.
     */
    const die = async (keys: readonly string[], mayWait: boolean, touched: readonly string[] = []) => {
      await queue.broker.saveWorker({ workerId, stats, metadata: null, queueKey: queue.name }, 9);
      const { jobs } = await queue.broker.claim({
        workerId,
        limit: 10,
        priorities: [0, 0],
        grouped: false,
        mayWait,
      });
      expect(jobs.map(({ key }) => key).toSorted()).toEqual(keys);
      for (const job of jobs.filter(({ key }) => touched.includes(key))) {
        const patch = JSON.stringify({ touched: queue.broker.now() + 5_000 });
        await queue.broker.heartbeat([{ ...job, patch, removed: [] }]);
      }
      await database.stored.expireWorker(queue.name, workerId);
      const swept: string[] = [];
      while (swept.length < keys.length) {
        clock.pass(2);
        clock.set(2);
        swept.push(...(await queue.broker.sweepLost(limits)));
      }
      const metas: Record<string, unknown> = {};
      for (const key of keys) metas[key] = await metaOf(key);
      return metas;
    };
    for (const key of ["a", "b"]) await queue.enqueue("work", undefined, { key, meta: { mine: 1 } });
    expect(await die(["a", "b"], true)).toEqual({ a: { mine: 1, lost: 0 }, b: { mine: 1, lost: 0 } });
    // From here on `lost` is in the meta of both jobs: such a job counts as started only if a heartbeat was stored.
    expect(await die(["a", "b"], false, ["a"])).toEqual({ a: { mine: 1, lost: 1 }, b: { mine: 1, lost: 0 } });
    await queue.enqueue("work", undefined, { key: "c" });
    expect(await die(["a", "b", "c"], false, ["b"])).toEqual({
      a: { mine: 1, lost: 1 },
      b: { mine: 1, lost: 1 },
      c: { lost: 1 },
    });
    expect((await rowOf(database, "a"))?.status).toBe("queued");
  });

  it("run again only after the next worker has stored a heartbeat for them", async () => {
    let touchedFirst: unknown;
    const look = async (ctx: { job: { key: string } }) => {
      const { started, touched } = JSON.parse((await rowOf(database, ctx.job.key))?.text ?? "") as {
        started: number;
        touched: number;
      };
      touchedFirst = touched > started;
    };
    const queue = openQueue(database, { look });
    await queue.enqueue("look", undefined, { key: "looked", meta: { lost: 0 } });
    const { ended } = await startWorker(queue);
    expect(await ended("looked")).toBe("Finished look");
    expect(touchedFirst).toBe(true);
  });
});

it("a worker holds the claim of a job until its loss is stored, so that no reconcile puts it back uncounted", async () => {
  const queue = openQueue(database, { hello: () => 1 });
  await queue.enqueue("hello");
  const [job] = await claim(queue);
  if (!job) throw new Error("nothing was claimed");
  const lose = queue.broker.recordLost.bind(queue.broker);
  let goOn: () => void = () => {};
  const free = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  queue.broker.recordLost = async (...given) => {
    await free;
    return lose(...given);
  };
  const report = { crashed: () => {} } as unknown as Report;
  const ignore = () => {};
  const settler = new Settler({
    broker: queue.broker,
    queueName: queue.name,
    workerId: "worker-1",
    report,
    hooks: null,
    logger: silentLogger,
    onStored: ignore,
    onUncongested: ignore,
  });
  settler.recordLoss({ claim: job } as unknown as Attempt, limits);
  expect([...settler.claims()]).toEqual([job]);
  goOn();
  await settler.settled();
  expect([...settler.claims()]).toEqual([]);
  expect(await metaOf(job.key)).toMatchObject({ lost: 1 });
});

describe("the gate for jobs that run alone", () => {
  const jobOf = (done: string[], name: string): AloneJob => ({
    start: () => {
      done.push(`start ${name}`);
      gate.started();
    },
    giveUp: () => void done.push(`give up ${name}`),
  });
  let gate = new AloneGate();

  it("starts its jobs one after another, gives up a job that has waited 30 s, and opens at the end", () => {
    jest.useFakeTimers();
    gate = new AloneGate();
    const done: string[] = [];
    gate.started();
    gate.wait(jobOf(done, "a"));
    expect(gate.isOpen).toBe(false);
    gate.onceOpen(() => done.push("open"));
    jest.advanceTimersByTime(20_000);
    gate.wait(jobOf(done, "b"));
    jest.advanceTimersByTime(10_000);
    expect(done).toEqual(["give up a"]);
    gate.ended(false);
    expect(done).toEqual(["give up a", "start b"]);
    gate.wait(jobOf(done, "c"));
    gate.ended(true);
    expect(done).toEqual(["give up a", "start b", "start c"]);
    expect(gate.isOpen).toBe(false);
    gate.wait({ start: () => gate.notStarted(), giveUp: () => {} });
    gate.ended(true);
    expect(done).toEqual(["give up a", "start b", "start c", "open"]);
    expect(gate.isOpen).toBe(true);
  });

  it("closes less and less often for a job that gives up because another job runs for hours", async () => {
    jest.useFakeTimers();
    gate = new AloneGate();
    const pauses: number[] = [];
    const claimed = {
      key: "suspect",
      receipt: {} as Receipt,
      due: 1,
      document: "{}",
      firstStart: null,
    };
    const jobs = new AloneJobs({
      gate,
      renew: async () => claimed,
      mayStart: () => true,
      start: () => {
        gate.started();
        return true;
      },
      giveBack: (_claimed, seconds) => pauses.push(seconds),
    });
    const giveUp = (job = claimed) => {
      jobs.wait(job);
      jest.advanceTimersByTime(30_000);
    };
    gate.started();
    for (let turn = 0; turn < 6; turn++) giveUp();
    expect(pauses).toEqual([60, 120, 240, 480, 960, 960]);
    giveUp({ ...claimed, key: "another" });
    expect(pauses.at(-1)).toBe(60);
    // The neighbour ends and the job runs. After that the first pause is 60 s again.
    jobs.wait(claimed);
    gate.ended(false);
    await Promise.resolve();
    giveUp();
    expect(pauses.at(-1)).toBe(60);
    expect(jobs.size).toBe(0);
  });

  it("a stop waits until a job that is being started is given back", async () => {
    gate = new AloneGate();
    const claimed = { key: "suspect", receipt: {} as Receipt, due: 1, document: "{}", firstStart: null };
    const done: string[] = [];
    let answer: (renewed: undefined) => void = () => {};
    const jobs = new AloneJobs({
      gate,
      renew: () =>
        new Promise((resolve) => {
          answer = resolve;
        }),
      mayStart: () => false,
      start: () => false,
      giveBack: () => void done.push("given back"),
    });
    jobs.wait(claimed);
    const stopped = jobs.withdraw().then(() => done.push("stopped"));
    await sleep(0);
    expect(done).toEqual([]);
    answer(undefined);
    await stopped;
    expect(done).toEqual(["given back", "stopped"]);
  });
});
