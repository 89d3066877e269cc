import { afterAll, beforeAll, expect, it } from "@jest/globals";
import request from "supertest";
import { createApp } from "../app/app.js";
import { logger } from "../app/logger.js";
import { queueRoutes, saq, taskQueues } from "../app/queue/index.js";
import { waitFor } from "./wait-for.js";

const app = createApp({ saq, queueRoutes, logger });
const queue = taskQueues.get("default");
const workers = saq.workers();

beforeAll(async () => {
  await saq.connect();
  await Promise.all(workers.map((worker) => worker.start()));
});
afterAll(async () => {
  await Promise.all(workers.map((worker) => worker.stop()));
  await saq.close();
});

async function jobJson(id: string) {
  const { body } = await request(app).get(`/queue/jobs/${id}`);
  return body;
}

const finishedJob = (id: string) =>
  waitFor(`job ${id} to finish`, async () => {
    const job = await jobJson(id);
    return ["complete", "failed", "aborted"].includes(job.status) && job;
  });

it("runs the job of POST /queue/example and stores its result", async () => {
  const { body } = await request(app).post("/queue/example").send({ message: "hi" });
  const job = await finishedJob(body.job_id);
  expect(job).toEqual({
    job_id: body.job_id,
    function: "exampleTask",
    status: "complete",
    progress: 1,
    attempts: 1,
    queued_at: expect.any(String),
    scheduled_at: null,
    started_at: expect.any(String),
    completed_at: expect.any(String),
    result: { status: "success", message: "hi" },
    error: null,
  });
  expect(Date.parse(job.completed_at)).toBeGreaterThanOrEqual(Date.parse(job.started_at) + 500);
});

it("shows the progress of a running job", async () => {
  const { body } = await request(app).post("/queue/example").send({ message: "half" });
  const half = await waitFor("the first half", async () => {
    const job = await jobJson(body.job_id);
    return job.progress > 0 && job;
  });
  expect(half).toMatchObject({ status: "active", progress: 0.5, completed_at: null });
  await finishedJob(body.job_id);
});

it("runs ten jobs at a time", async () => {
  const sent = await queue.enqueueMany(
    Array.from({ length: 10 }, (_, i) => ({ task: "exampleTask", payload: { message: `${i}` } }) as const),
  );
  const finished = await Promise.all(sent.map((job) => finishedJob(job?.id ?? "")));
  const started = finished.map((job) => Date.parse(job.started_at));
  const completed = finished.map((job) => Date.parse(job.completed_at));
  // All jobs had begun before the first job ended.
  expect(Math.max(...started)).toBeLessThan(Math.min(...completed));
});

it("runs a delayed job when it is due, not earlier", async () => {
  const { body } = await request(app).post("/queue/delayed").send({ message: "later", delay_seconds: 1.5 });
  const job = await finishedJob(body.job_id);
  const wait = Date.parse(job.started_at) - Date.parse(job.queued_at);
  // Due times are whole seconds, rounded up.
  expect(wait).toBeGreaterThanOrEqual(1_500);
  expect(wait).toBeLessThan(30_000);
  expect(job).toMatchObject({ status: "complete", result: { status: "success", message: "later" } });
});

it("schedules the nightly clean-up for 03:00 UTC, and runs it immediately on request", async () => {
  const [cleanup] = await queue.schedules.list();
  expect(cleanup).toMatchObject({
    name: "nightlyCleanup",
    cron: "0 3 * * *",
    timezone: "UTC",
    paused: false,
  });
  expect(new Date((cleanup?.nextRun ?? 0) * 1000).toISOString()).toMatch(/T03:00:00.000Z$/);
  await waitFor("its next run to wait in the queue", async () => queue.job("cron:nightlyCleanup"));
  const { id } = await queue.schedules.run("nightlyCleanup");
  expect(await finishedJob(id)).toMatchObject({ status: "complete", result: { status: "success" } });
});
