/** Real workers whose wall clock is moved by an hour while they work. All scenarios run concurrently. */
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { cronJob, inSeconds } from "../../../templates/backend/saq/index.js";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase } from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";

const file = (name: string) => fileURLToPath(new URL(`../support/processes/${name}`, import.meta.url));
const command = ["--import", "tsx", "--import", file("stepped-date.ts"), file("worker.ts")];
const everySecond = [cronJob("record", { cron: "* * * * * *", name: "everySecond" })];

async function step(name: string, signal: "SIGUSR2" | "SIGHUP") {
  const database = await newDatabase(name);
  const { queue, close } = openQueue(database.url);
  const worker = await WorkerProcess.start({ url: database.url, command, scheduledTasks: everySecond });
  const ticks = async () => (await database.runs("cron:everySecond")).length;
  const databaseSecond = async () =>
    (await database.query<{ s: number }>("select extract(epoch from now())::float8 as s"))[0]?.s ?? 0;
  try {
    const beating = await queue.enqueue("nap", { ms: 6_000 }, { timeout: 60, heartbeat: 30 });
    await eventually("it runs", async () => (await database.runs(beating.key)).length === 1);
    await eventually("cron ticks", async () => (await ticks()) > 0);
    worker.signal(signal);
    const before = await ticks();
    const waiting = await queue.enqueue("record", undefined, { scheduled: inSeconds(3) });
    await queue.enqueue("later", { key: "later", seconds: 30 });
    const due = (await databaseSecond()) + 3;
    await eventually("the due job ran", async () => (await database.runs(waiting.key)).length === 1);
    const lateBy = (await databaseSecond()) - due;
    await eventually("cron ticks on", async () => (await ticks()) >= before + 2);
    await eventually("the long job ended", async () => {
      const { status } = await database.document(beating.key);
      return status !== "active" && status !== "queued";
    });
    const [later] = await database.query<{ seconds: number }>(
      "select scheduled - extract(epoch from now())::float8 as seconds from saq_jobs where key = 'later'",
    );
    const outcome = { lateBy, later: later?.seconds ?? 0, beating: await database.document(beating.key) };
    await worker.said("the clocks of this machine and of the database differ");
    // Sets the worker's clock right again.
    worker.signal(signal === "SIGUSR2" ? "SIGHUP" : "SIGUSR2");
    await worker.said("the clocks of this machine and of the database agree again");
    const warnings = worker.lines.filter(({ level }) => level === "warn").map(({ message }) => message);
    await worker.stop();
    return { ...outcome, warnings };
  } finally {
    await close();
    await database.drop();
  }
}

describe("a worker whose wall clock jumps by an hour", () => {
  const steps = { forward: "SIGUSR2", back: "SIGHUP" } as const;
  const outcomes = {} as Record<keyof typeof steps, ReturnType<typeof step>>;

  beforeAll(() => {
    for (const name of ["forward", "back"] as const) {
      const outcome = step(`clock_${name}`, steps[name]);
      // The test that awaits the outcome fails. Without this handler an earlier rejection would be unhandled.
      outcome.catch(() => {});
      outcomes[name] = outcome;
    }
  });
  afterAll(endAllWorkers);

  it.each(["forward", "back"] as const)(
    "D-29: %s: heartbeats, due jobs and schedules continue, new due times are right, one warning is logged",
    async (name) => {
      const { lateBy, later, beating, warnings } = await outcomes[name];
      expect(beating).toMatchObject({ status: "complete", attempts: 1 });
      expect(lateBy).toBeLessThan(15);
      expect(later).toBeGreaterThan(0);
      expect(later).toBeLessThanOrEqual(31);
      expect(warnings).toEqual([expect.stringContaining("differ by more than a second")]);
    },
    120_000,
  );
});
