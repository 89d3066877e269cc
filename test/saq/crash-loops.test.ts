/**
 * A job that ends its worker each time it runs, as real processes: it fails at its limit, and the jobs beside and
 * behind it run. Both scenarios wait more than they work, so they run at once.
 */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { emptyFolder } from "../support/folders.js";
import { endAllWorkers, WorkerProcess } from "./processes/child.js";
import { compileInto } from "./processes/compiled.js";
import { newDatabase, type Run, type StoredDocument, type TestDatabase } from "./processes/database.js";
import { openQueue } from "./processes/enqueuer.js";

/** Compiled, because many workers are started: three times as fast as from the source. */
const folder = emptyFolder();
const command = [join(folder, "test/saq/processes/worker.js")];
/** A death is noticed within some five seconds instead of fifteen. */
const timers = { workerInfo: 0.5, lost: 0.5 };

interface Outcome {
  killer: StoredDocument;
  others: { status: string; lost: number | null; jobs: number }[];
  runs: Run[];
}

/** Starts worker after worker until the killer's job has ended and nothing is left. */
async function untilItIsOver(database: TestDatabase, concurrency: number): Promise<Outcome> {
  const isOver = async () => {
    const [{ left } = { left: 0 }] = await database.query<{ left: number }>(
      "select count(*)::int as left from saq_jobs where status in ('queued', 'active', 'aborting')",
    );
    return left === 0;
  };
  for (let deaths = 0; ; deaths++) {
    if (deaths > 12) throw new Error("the workers die on and on");
    const worker = await WorkerProcess.start({
      url: database.url,
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
  const others = await database.query<{ status: string; lost: number | null; jobs: number }>(
    `select status, (d->'meta'->>'lost')::int as lost, count(*)::int as jobs
     from saq_jobs, lateral (select convert_from(job, 'UTF8')::jsonb as d) document
     where key <> 'killer' group by 1, 2 order by 2`,
  );
  return { killer: await database.document("killer"), others, runs: await database.runs() };
}

async function scenario(name: string, play: (database: TestDatabase) => Promise<Outcome>): Promise<Outcome> {
  const database = await newDatabase(name);
  try {
    return await play(database);
  } finally {
    await database.drop();
  }
}

/** An emitter without a listener, a timer that throws: an error that nobody can catch. */
const uncaught = () =>
  scenario("uncaught", async (database) => {
    const { queue, close } = openQueue(database.url);
    for (let n = 0; n < 9; n++) await queue.enqueue("nap", { ms: 1_000 }, { key: `beside${n}` });
    await queue.enqueue("strayThrow", undefined, { key: "killer" });
    for (let n = 0; n < 20; n++) await queue.enqueue("record", undefined, { key: `behind${n}` });
    await close();
    return untilItIsOver(database, 10);
  });

/** Many short jobs, so that its worker has claimed hundreds ahead when it is killed. */
const killed = () =>
  scenario("killed_ahead", async (database) => {
    const { queue, close } = openQueue(database.url);
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
    // Whoever awaits it fails; until then the rejection is nobody's.
    for (const outcome of Object.values(outcomes)) outcome.catch(() => {});
  }, 60_000);
  afterAll(endAllWorkers);

  it("5.2: by an uncaught error: fails after four runs, the last two alone, and all others complete", async () => {
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

  it("5.2: by SIGKILL: fails all the same, and of the jobs that were claimed ahead none counts as lost", async () => {
    const { killer, others, runs } = await outcomes.killed;
    expect(killer).toMatchObject({
      status: "failed",
      error: expect.stringMatching(/^worker lost: 4 workers died/),
    });
    // Where it was claimed ahead the first time, that one death counts for nobody.
    expect([4, 5]).toContain(runs.length);
    expect(new Set(others.map(({ status }) => status))).toEqual(new Set(["complete"]));
    const lost = others.filter((other) => (other.lost ?? 0) > 0);
    // Those that ran, and those whose end was not recorded yet: not the hundreds that were claimed ahead.
    expect(lost.reduce((sum, { jobs }) => sum + jobs, 0)).toBeLessThan(200);
    for (const other of lost) expect(other.lost).toBeLessThanOrEqual(2);
  }, 120_000);
});
