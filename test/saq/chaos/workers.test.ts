/**
 * Workers that are killed, paused or blocked. The scenarios are long (30 s of pause) and mostly wait, so they all run
 * concurrently, each in a database of its own.
 */
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase, type TestDatabase } from "../support/processes/database.js";
import { loadRedisClient, openQueue } from "../support/processes/enqueuer.js";
import { can, onRedis, possible } from "../support/test-broker.js";

interface Stage extends ReturnType<typeof openQueue> {
  database: TestDatabase;
  running(key: string): Promise<unknown>;
  complete(key: string): Promise<unknown>;
}

async function scenario<T>(name: string, play: (stage: Stage) => Promise<T>): Promise<T> {
  const database = await newDatabase(name);
  const { pollInterval = 0 } = database.worker;
  const { queue, close } = openQueue(database.url, { pollInterval });
  try {
    return await play({
      database,
      queue,
      close,
      running: (key) => eventually(`${key} runs`, async () => (await database.runs(key)).length === 1),
      complete: (key) =>
        eventually(`${key} is complete`, async () => (await database.document(key)).status === "complete"),
    });
  } finally {
    await close();
    await database.drop();
  }
}

/**
 * Starts a worker that takes the next jobs, and a second one that is paused after its start, so that it is ready when
 * the test needs it.
 */
async function startWithPaused({ worker }: TestDatabase): Promise<[WorkerProcess, WorkerProcess]> {
  const [first, second] = await Promise.all([
    WorkerProcess.start({ ...worker }),
    WorkerProcess.start({ ...worker }),
  ]);
  second.signal("SIGSTOP");
  return [first, second];
}

const killed = () =>
  scenario("killed", async ({ database, queue, running, complete }) => {
    const [victim, heir] = await startWithPaused(database);
    const { key } = await queue.enqueue("nap", { ms: 12_000 }, { timeout: 60 });
    await running(key);
    heir.signal("SIGCONT");
    victim.signal("SIGKILL");
    const began = performance.now();
    await eventually("it runs again", async () => (await database.runs(key)).length === 2);
    const ms = performance.now() - began;
    await complete(key);
    const [runs, document] = [await database.runs(key), await database.document(key)];
    await heir.stop();
    return { ms, runs, document, heir: heir.pid };
  });

const killedAgainAndAgain = () =>
  scenario("doomed", async ({ database, queue }) => {
    const timers = { workerInfo: 0.5, lost: 0.5 };
    const { key } = await queue.enqueue("patient", { ms: 60_000 });
    for (let death = 1; death <= 4; death++) {
      const victim = await WorkerProcess.start({ ...database.worker, timers });
      await eventually(`run ${death}`, async () => (await database.runs(key)).length === death);
      victim.signal("SIGKILL");
      await victim.exited;
    }
    const last = await WorkerProcess.start({ ...database.worker, timers });
    await eventually("the job is given up", async () => (await database.document(key)).status === "failed");
    const outcome = { runs: (await database.runs(key)).length, document: await database.document(key) };
    await last.stop();
    return outcome;
  });

const paused = () =>
  scenario("paused", async ({ database, queue, running, complete }) => {
    const options = { timeout: 5, retries: 2 };
    const [sleeper, heir] = await startWithPaused(database);
    // One task is over when the process wakes; the other ends only by its signal.
    const over = await queue.enqueue("nap", { ms: 500, firstMs: 4_500 }, options);
    const endless = await queue.enqueue("nap", { ms: 500, firstMs: 60_000 }, options);
    await Promise.all([running(over.key), running(endless.key)]);
    sleeper.signal("SIGSTOP");
    heir.signal("SIGCONT");
    await Promise.all([complete(over.key), complete(endless.key)]);
    const before = [await database.document(over.key), await database.document(endless.key)];
    sleeper.signal("SIGCONT");
    await eventually("both runs of both jobs have ended", async () => {
      const runs = await database.runs();
      // If the jobs were taken over before they were swept, the attempt was not used, and its first run times out.
      return runs.length >= 4 && runs.every((run) => run.ended !== null);
    });
    // When this worker has stopped, its late settlements have been sent and refused.
    await sleeper.stop();
    const after = [await database.document(over.key), await database.document(endless.key)];
    const late = (await database.runs(endless.key)).find((run) => run.pid === sleeper.pid);
    await heir.stop();
    return {
      before,
      after,
      late,
      heir: heir.pid,
      refused: sleeper.lines.filter((line) => /lost the job/.test(line.message)),
    };
  });

const blocked = () =>
  scenario("blocked", async ({ database, queue, complete }) => {
    const [worker, other] = await startWithPaused(database);
    const beside = await queue.enqueue("patient", { ms: 14_000 });
    const group = possible({ groupKey: "one at a time" });
    const blocker = await queue.enqueue("block", { ms: 14_000 }, { timeout: 30, ...group });
    // Without groups, this job would not wait for the blocker.
    const next = can("groups") ? await queue.enqueue("record", undefined, group) : null;
    await eventually("both run", async () => (await database.runs()).length === 2);
    // Before this log line the worker would claim the next job itself, and keep it for as long as its event loop is
    // blocked.
    await worker.said("blocks the event loop");
    other.signal("SIGCONT");
    const alone = await queue.enqueue("record");
    await complete(alone.key);
    await Promise.all([beside, blocker, ...(next ? [next] : [])].map(({ key }) => complete(key)));
    const outcome = {
      runs: await database.runs(),
      keys: {
        beside: beside.key,
        blocker: blocker.key,
        alone: alone.key,
        ...(next ? { next: next.key } : {}),
      },
      metas: [(await database.document(beside.key)).meta, (await database.document(blocker.key)).meta],
      pid: worker.pid,
      other: other.pid,
    };
    await Promise.all([worker.stop(), other.stop()]);
    return outcome;
  });

const buffered = () =>
  scenario("buffered", async ({ database, queue }) => {
    // Short jobs make the worker claim ahead. Then it is paused with a full buffer, and its jobs are swept.
    const sleeper = await WorkerProcess.start({ ...database.worker, concurrency: 2 });
    await queue.enqueueMany(
      Array.from({ length: 4_000 }, () => ({ task: "nap", payload: { ms: 1 }, timeout: 2, retries: 2 })),
    );
    await eventually("the worker is at work", async () => (await database.runs()).length > 100);
    sleeper.signal("SIGSTOP");
    const heir = await WorkerProcess.start({ ...database.worker });
    await eventually("the rest is done elsewhere", async () => (await queue.count("incomplete")) === 0);
    const before = (await database.runs()).length;
    sleeper.signal("SIGCONT");
    await sleeper.stop();
    await heir.stop();
    // Jobs that were only claimed ahead (hundreds) must not run a second time. The two jobs that ran at the pause may
    // have begun without a recorded run: they record it when the worker wakes.
    return { ranAfterwards: (await database.runs()).length - before };
  });

const shared = () =>
  scenario("shared", async ({ database, queue }) => {
    await queue.enqueueMany(Array.from({ length: 2_000 }, () => ({ task: "record", payload: undefined })));
    const workers = await Promise.all([1, 2].map(() => WorkerProcess.start({ ...database.worker })));
    await eventually("all are done", async () => (await queue.counts()).complete === 2_000);
    const [counted] = await database.query<{ runs: number; jobs: number; pids: number }>(
      "select count(*)::int as runs, count(distinct job)::int as jobs, count(distinct pid)::int as pids from runs",
    );
    await Promise.all(workers.map((worker) => worker.stop()));
    return counted;
  });

describe("workers that are killed, paused or blocked", () => {
  const scenarios = { killed, killedAgainAndAgain, paused, blocked, buffered, shared };
  const outcomes = {} as { [Name in keyof typeof scenarios]: ReturnType<(typeof scenarios)[Name]> };

  beforeAll(async () => {
    if (onRedis) await loadRedisClient();
    for (const [name, play] of Object.entries(scenarios)) {
      const outcome = play();
      // The test that awaits the outcome fails. Without this handler an earlier rejection would be unhandled.
      outcome.catch(() => {});
      Object.assign(outcomes, { [name]: outcome });
    }
  });
  afterAll(endAllWorkers);

  it("W-7: two workers run each of 2,000 jobs once", async () => {
    expect(await outcomes.shared).toEqual({ runs: 2_000, jobs: 2_000, pids: 2 });
  }, 600_000);

  it("D-10: the job of a killed worker runs again without using an attempt", async () => {
    const { ms, runs, document, heir } = await outcomes.killed;
    // Within 15 s on an idle machine.
    expect(ms).toBeLessThan(45_000);
    expect(runs).toHaveLength(2);
    expect(document).toMatchObject({
      status: "complete",
      attempts: 1,
      meta: { lost: 1 },
      result: { pid: heir },
    });
  }, 600_000);

  it("D-10: a job whose worker dies four times fails as lost", async () => {
    const { runs, document } = await outcomes.killedAgainAndAgain;
    expect(runs).toBe(4);
    expect(document).toMatchObject({ status: "failed", meta: { lost: 4 } });
    expect(document.error).toMatch(/^worker lost/);
  }, 600_000);

  it("a worker that was paused does not change jobs that another worker took over", async () => {
    const { before, after, late, heir, refused } = await outcomes.paused;
    for (const document of before)
      expect(document).toMatchObject({ status: "complete", attempts: 2, result: { pid: heir } });
    expect(after).toEqual(before);
    expect(late?.signal).toMatch(/^(LostError|TimeoutError)$/);
    expect(refused).toHaveLength(2);
  }, 600_000);

  it("a worker whose event loop is blocked for 14 s does not count as dead", async () => {
    const { runs, keys, metas, pid, other } = await outcomes.blocked;
    // Each job runs once. The other worker takes the free job (`alone`). The next job of the group starts only after
    // the blocker has ended.
    expect(runs.map((run) => run.job).toSorted()).toEqual(Object.values(keys).toSorted());
    const run = (name: keyof typeof keys) => runs.find(({ job }) => job === keys[name]);
    expect([run("beside")?.pid, run("blocker")?.pid, run("alone")?.pid]).toEqual([pid, pid, other]);
    if (can("groups"))
      expect(run("next")?.started.getTime()).toBeGreaterThanOrEqual(
        run("blocker")?.ended?.getTime() ?? Infinity,
      );
    expect(metas).toEqual([undefined, undefined]);
  }, 600_000);

  it("a paused worker that wakes does not run prefetched jobs that another worker has run", async () => {
    const { ranAfterwards } = await outcomes.buffered;
    expect(ranAfterwards).toBeLessThanOrEqual(2);
  }, 600_000);
});
