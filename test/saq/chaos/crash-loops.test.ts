/**
 * A job that ends its worker process each time it runs: the job fails at its limit, and the jobs beside and behind it
 * run. Both scenarios mostly wait, so they run concurrently.
 */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { emptyFolder } from "../../support/folders.js";
import { endAllWorkers, WorkerProcess } from "../support/processes/child.js";
import { compileInto } from "../support/processes/compiled.js";
import {
  newDatabase,
  type Run,
  type StoredDocument,
  type TestDatabase,
} from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";

/** Compiled, because many workers are started: they start three times as fast as from the source. */
const folder = emptyFolder();
const command = [join(folder, "test/saq/support/processes/worker.js")];
/** With these timers a dead worker is noticed within about 5 s instead of 15 s. */
const timers = { workerInfo: 0.5, lost: 0.5 };

interface Outcome {
  killer: StoredDocument;
  others: { status: string; lost: number | null; jobs: number }[];
  runs: Run[];
}

/** Starts one worker after the other until the killer's job has ended and no job is left. */
async function untilItIsOver(database: TestDatabase, concurrency: number): Promise<Outcome> {
  const { queue, close } = openQueue(database.url, modeOf(database));
  const isOver = async () => (await queue.count("incomplete")) === 0;
  for (let deaths = 0; ; deaths++) {
    if (deaths > 12) throw new Error("the workers die on and on");
    const worker = await WorkerProcess.start({
      ...database.worker,
      command,
      timers,
      concurrency,
      quiet: true,
    });
    let hasEnded = false;
    void worker.exited.then(() => {
      hasEnded = true;
    });
    while (!hasEnded && !(await isOver())) await new Promise((resolve) => setTimeout(resolve, 50));
    if (!hasEnded) {
      await worker.stop();
      break;
    }
  }
  await close();
  const others = new Map<string, Outcome["others"][number]>();
  for (const { key, status, text } of await database.stored.rows("default")) {
    if (key === "killer") continue;
    const { meta: { lost = null } = {} } = JSON.parse(text) as { meta?: { lost?: number } };
    const group = others.get(`${status} ${lost}`) ?? { status, lost, jobs: 0 };
    group.jobs++;
    others.set(`${status} ${lost}`, group);
  }
  return {
    killer: await database.document("killer"),
    others: [...others.values()],
    runs: await database.runs(),
  };
}

/** How the queue reaches its broker. */
const modeOf = ({ worker: { pollInterval = 0 } }: TestDatabase) => ({ pollInterval });

async function scenario(name: string, play: (database: TestDatabase) => Promise<Outcome>): Promise<Outcome> {
  const database = await newDatabase(name);
  try {
    return await play(database);
  } finally {
    await database.drop();
  }
}

/** The task throws an error that nobody can catch, as from an emitter without a listener or from a timer. */
const uncaught = () =>
  scenario("uncaught", async (database) => {
    const { queue, close } = openQueue(database.url, modeOf(database));
    for (let n = 0; n < 9; n++) await queue.enqueue("nap", { ms: 1_000 }, { key: `beside${n}` });
    await queue.enqueue("strayThrow", undefined, { key: "killer" });
    for (let n = 0; n < 20; n++) await queue.enqueue("record", undefined, { key: `behind${n}` });
    await close();
    return untilItIsOver(database, 10);
  });

/** Many short jobs, so that the worker has claimed hundreds ahead when it is killed. */
const killed = () =>
  scenario("killed_ahead", async (database) => {
    const { queue, close } = openQueue(database.url, modeOf(database));
    const noops = (count: number) => Array.from({ length: count }, () => ({ task: "noop" as const }));
    await queue.enqueueMany(noops(3_000));
    await queue.enqueue("die", undefined, { key: "killer" });
    await queue.enqueueMany(noops(3_000));
    await close();
    return untilItIsOver(database, 10);
  });

describe("a job that ends its worker each time it runs", () => {
  const outcomes = {} as Record<"uncaught" | "killed", Promise<Outcome>>;

  beforeAll(async () => {
    await compileInto(folder);
    Object.assign(outcomes, { uncaught: uncaught(), killed: killed() });
    // The test that awaits the outcome fails. Without this handler an earlier rejection would be unhandled.
    for (const outcome of Object.values(outcomes)) outcome.catch(() => {});
  }, 120_000);
  afterAll(endAllWorkers);

  it("with an uncaught error fails after four runs, the last two alone, and all other jobs complete", async () => {
    const { killer, others, runs } = await outcomes.uncaught;
    expect(killer).toMatchObject({
      status: "failed",
      error: "worker lost: 4 workers died while they ran this job, the last 2 of them while it ran alone",
      meta: { lost: 4 },
    });
    expect(new Set(others.map(({ status }) => status))).toEqual(new Set(["complete"]));
    expect(others.reduce((sum, { jobs }) => sum + jobs, 0)).toBe(29);
    for (const { lost } of others) expect(lost ?? 0).toBeLessThanOrEqual(2);
    const fatal = runs.filter(({ job }) => job === "killer");
    expect(fatal).toHaveLength(4);
    for (const { pid, started } of fatal.slice(2)) {
      const beside = runs.filter(
        (run) =>
          run.job !== "killer" &&
          run.pid === pid &&
          (run.ended === null || run.ended.getTime() > started.getTime()),
      );
      expect(beside).toEqual([]);
    }
  }, 120_000);

  it("with SIGKILL fails too, and jobs that were only claimed ahead do not count as lost", async () => {
    const { killer, others, runs } = await outcomes.killed;
    expect(killer).toMatchObject({
      status: "failed",
      error: expect.stringMatching(/^worker lost: 4 workers died/),
    });
    // If the killer's job was claimed ahead the first time, this first death counts for no job.
    expect([4, 5]).toContain(runs.length);
    expect(new Set(others.map(({ status }) => status))).toEqual(new Set(["complete"]));
    const lost = others.filter((other) => (other.lost ?? 0) > 0);
    // Jobs that ran, or whose end was not recorded yet, count as lost, but not the hundreds that were claimed ahead.
    expect(lost.reduce((sum, { jobs }) => sum + jobs, 0)).toBeLessThan(200);
    for (const other of lost) expect(other.lost).toBeLessThanOrEqual(2);
  }, 120_000);
});
