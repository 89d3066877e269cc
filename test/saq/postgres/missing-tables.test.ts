/** The tables disappear while a worker runs. */
import { expect, it } from "@jest/globals";
import { openQueue, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();

it("missing tables are logged once when they disappear and once when they return; results wait for them", async () => {
  let finish = () => {};
  const tasks = {
    hold: () =>
      new Promise<string>((resolve) => {
        finish = () => resolve("held");
      }),
    double: async (_ctx: unknown, { n }: { n: number }) => n * 2,
  };
  const queue = openQueue(database, tasks, {
    timers: { lost: 0.2, sweep: 0.2, abort: 0.1, workerInfo: 0.2 },
  });
  const { log, ended } = await startWorker(queue);
  const job = await queue.enqueue("hold", undefined, { timeout: 0 });
  await log.saw(({ message }) => message === "Processing hold");
  await database.query(
    "alter table saq_jobs rename to kept_jobs; alter table saq_stats rename to kept_stats",
  );
  await log.saw(({ level }) => level === "warn");
  await expect(queue.enqueue("double", { n: 1 })).rejects.toThrow(
    "the queue's tables are missing; the next start of a worker or of the API creates them, " +
      "then this process continues",
  );
  // Waits until every periodic task of the worker has failed, and its claims too.
  for (const source of ["heartbeat", "lost", "sweep", "abort", "claim"])
    await log.saw(({ fields }) => fields.source === source && fields.reason !== undefined);
  finish();
  const seen = new Set(log.lines);
  await log.saw((line) => !seen.has(line) && line.fields.source === "heartbeat");
  await database.query(
    "alter table kept_jobs rename to saq_jobs; alter table kept_stats rename to saq_stats",
  );
  expect(await ended(job.key)).toMatch("Finished");
  await log.saw(({ message }) => message.startsWith("over after"));
  const warnings = log.lines.filter(({ level }) => level === "warn" || level === "error");
  expect(warnings.map(({ fields }) => fields.reason)).toEqual([
    "the queue's tables are missing; the next start of a worker or of the API creates them, " +
      "then this process continues",
  ]);
  expect(warnings[0]?.fields).not.toHaveProperty("err");
  const after = await queue.enqueue("double", { n: 4 });
  await until(async () => (await after.refresh()).status === "complete");
});
