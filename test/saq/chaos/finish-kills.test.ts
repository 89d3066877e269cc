/** Workers that are killed around the commit in which a task finishes its job (kill -9, real processes). */
import { afterAll, expect, it } from "@jest/globals";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase } from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";

afterAll(endAllWorkers);

const timers = { workerInfo: 0.5, lost: 0.5 };

async function openStage(name: string) {
  const database = await newDatabase(name);
  await database.query("create table effects (job text not null, pid int not null)");
  const { queue, close } = openQueue(database.url);
  return {
    database,
    queue,
    end: async () => {
      await close();
      await database.drop();
    },
  };
}

it("a job stays complete with one effect when its worker is killed between the commit and the task's return", async () => {
  const { database, queue, end } = await openStage("finished");
  const victim = await WorkerProcess.start({ url: database.url, timers });
  const { key } = await queue.enqueue("once", { naps: [], hang: true }, { timeout: 0, retries: 3 });
  // The task records that it hangs after its commit.
  await eventually("it hangs", async () => (await database.runs(key))[0]?.signal === "never");
  const before = await database.document(key);
  expect(before).toMatchObject({ status: "complete", result: { pid: victim.pid } });
  victim.signal("SIGKILL");
  await victim.exited;
  const heir = await WorkerProcess.start({ url: database.url, timers });
  // When the dead worker is swept, its unfinished jobs are returned to the queue. This job must not be one of them.
  const { key: later } = await queue.enqueue("once", { naps: [] });
  await eventually("the heir works", async () => (await database.document(later)).status === "complete");
  await eventually("the dead are swept", async () => {
    const workers = await database.query("select 1 from saq_stats where worker_id = $1", [victim.workerId]);
    return workers.length === 0;
  });
  expect(await database.document(key)).toEqual(before);
  expect(await database.query("select pid from effects where job = $1", [key])).toEqual([
    { pid: victim.pid },
  ]);
  await heir.stop();
  await end();
}, 600_000);

it("each of 200 jobs has its effect exactly once while workers are killed again and again", async () => {
  const { database, queue, end } = await openStage("killed_once");
  const options = { url: database.url, timers, concurrency: 10, lostLimit: 1_000 };
  let workers = await Promise.all([WorkerProcess.start(options), WorkerProcess.start(options)]);
  const nap = () => Math.floor(Math.random() * 25);
  const jobs = await queue.enqueueMany(
    Array.from({ length: 200 }, () => ({
      task: "once" as const,
      payload: { naps: [nap(), nap(), nap(), nap()] },
    })),
  );
  expect(jobs).not.toContain(null);
  const complete = async () =>
    (await database.query("select 1 from saq_jobs where status = 'complete'")).length;
  let kills = 0;
  for (const limit of [40, 90, 140]) {
    await eventually(`${limit} are complete`, async () => (await complete()) >= limit);
    const [victim, ...others] = workers;
    victim?.signal("SIGKILL");
    kills++;
    workers = [...others, await WorkerProcess.start(options)];
  }
  await eventually("all are complete", async () => (await complete()) === 200);
  const effects = await database.query<{ job: string; count: number }>(
    "select job, count(*)::int as count from effects group by job",
  );
  expect(effects.filter(({ count }) => count !== 1)).toEqual([]);
  expect(new Set(effects.map(({ job }) => job))).toEqual(new Set(jobs.map((job) => job?.key)));
  // The worker that recorded the end is the worker whose effect was stored.
  const strays = await database.query(
    `select j.key from saq_jobs j join effects e on e.job = j.key
      where (convert_from(j.job, 'UTF8')::jsonb->'result'->>'pid')::int <> e.pid`,
  );
  expect(strays).toEqual([]);
  const lost = await database.query(
    "select 1 from saq_jobs where convert_from(job, 'UTF8')::jsonb->'meta' ? 'lost'",
  );
  // Some workers were killed in the middle of a job; otherwise the test has shown nothing.
  expect(lost.length).toBeGreaterThan(0);
  expect(kills).toBe(3);
  await Promise.all(workers.map((worker) => worker.stop()));
  await end();
}, 600_000);
