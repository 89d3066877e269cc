/** Tasks that misuse the engine: they never end, report nonsense, or use its names in `meta` for other values. */
import { beforeAll, expect, it } from "@jest/globals";
import { createSaq, defineQueue, defineSaq } from "../../../templates/backend/saq/index.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import {
  openQueue,
  pollInterval,
  rowOf,
  startWorker,
  until,
  useDatabase,
  workerRow,
} from "../support/scenario.js";

const database = useDatabase();

beforeAll(async () => {
  const queue = openQueue(database, {});
  await queue.connect();
  await queue.close();
});

it("D-46: a task that never ends runs once, and its job fails if no other worker takes it", async () => {
  let runs = 0;
  const queue = openQueue(
    database,
    {
      hang: () => {
        runs++;
        return new Promise(() => {});
      },
    },
    { cancellationHardDeadline: 0.05 },
  );
  const { ended, log } = await startWorker(queue);
  const job = await queue.enqueue("hang", undefined, { timeout: 0.1, retries: 3 });
  expect(await ended(job.key)).toBe("Retrying hang");
  expect(await ended(job.key, 2)).toBe("Failed hang");
  expect(runs).toBe(1);
  expect(await queue.job(job.key)).toMatchObject({
    status: "failed",
    error: expect.stringContaining(
      "the previous run of this job in this worker ignores its signal and has not ended",
    ),
  });
  const refusals = log.lines.filter(({ message }) =>
    message.startsWith("the previous run of this job has not ended"),
  );
  expect(refusals).toHaveLength(1);
}, 600_000);

it("J-3: a progress outside 0 to 1 and a meta without JSON form are refused, and the job continues", async () => {
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  const queue = openQueue(database, {
    report: async ({ job }: Context) => {
      const refused: string[] = [];
      const note = (error: Error) => void refused.push(error.message.split("\n")[0] ?? "");
      for (const progress of [0 / 0, -0.1, 1.1, Number.POSITIVE_INFINITY])
        await job.update({ progress }).catch(note);
      await job.update({ meta: { circle } }).catch(note);
      await job.update({ progress: 0.5 });
      return refused;
    },
  });
  const { ended } = await startWorker(queue);
  const job = await queue.enqueue("report");
  expect(await ended(job.key)).toBe("Finished report");
  const { result, meta } = (await queue.job(job.key)) ?? {};
  expect(result).toEqual([
    "progress must be a number of 0 to 1, got NaN",
    "progress must be a number of 0 to 1, got -0.1",
    "progress must be a number of 0 to 1, got 1.1",
    "progress must be a number of 0 to 1, got Infinity",
    expect.stringContaining("circular"),
  ]);
  expect(meta).toEqual({});
});

it("D-47: a cancellation is counted although the user's meta has another value under this name", async () => {
  let started: () => void = () => {};
  const running = new Promise<void>((resolve) => {
    started = resolve;
  });
  const queue = openQueue(database, {
    long: ({ signal }: Context) =>
      new Promise((_resolve, reject) => {
        started();
        signal.addEventListener("abort", () => reject(signal.reason));
      }),
  });
  const { worker } = await startWorker(queue);
  const job = await queue.enqueue("long", undefined, { meta: { cancellations: "many" } });
  await running;
  await worker.stop({ grace: 0 });
  expect(await queue.job(job.key)).toMatchObject({
    status: "queued",
    attempts: 0,
    meta: { cancellations: 1 },
  });
});

it("close() stops all workers, and a worker that never started stops at once", async () => {
  const config = defineQueue({
    name: "closing",
    dsn: database.url,
    tasks: { ok: () => "ok" },
    ...pollInterval,
  });
  const saq = createSaq(defineSaq({ queues: [config] }));
  const [worker] = saq.workers();
  saq.workers();
  await worker?.start();
  const job = await saq.taskQueues.get("closing").enqueue("ok");
  await until(async () => (await rowOf(database, job.key))?.status === "complete");
  // A timer or connection that is left behind makes the test fail in its clean-up.
  await saq.close();
  expect(await workerRow(database, { name: "closing" }, String(worker?.workerId))).toBeUndefined();
});
