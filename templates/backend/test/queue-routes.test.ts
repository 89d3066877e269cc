import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import request from "supertest";
import { createApp } from "../app/app.js";
import { logger } from "../app/logger.js";
import { queueRoutes, saq, taskQueues } from "../app/queue/index.js";
import { unreachableApp } from "./unreachable.js";

const app = createApp({ saq, queueRoutes, logger });
const queue = taskQueues.get("default");

beforeAll(() => saq.connect());
afterAll(() => saq.close());

/** Returns the stored job that a response names. */
async function jobOf(body: { job_id: string }) {
  const job = await queue.job(body.job_id);
  if (!job) throw new Error(`No job ${body.job_id} was stored.`);
  return job;
}

describe("the routes that enqueue a job", () => {
  it("POST /queue/example stores a job that is due now", async () => {
    const { status, body } = await request(app)
      .post("/queue/example")
      .send({ message: "Hello from the queue!" });
    expect(status).toBe(201);
    expect(body).toEqual({ job_id: expect.any(String), status: "queued" });
    const job = await jobOf(body);
    expect(job).toMatchObject({
      function: "exampleTask",
      kwargs: { message: "Hello from the queue!" },
      status: "queued",
      scheduled: 0,
      timeout: 10,
      retries: 1,
      ttl: 600,
    });
  });

  it("POST /queue/example accepts any text as the message", async () => {
    const message = 'NUL \u0000, quote ", lone surrogate \ud800, emoji \u{1f600}';
    const { status, body } = await request(app).post("/queue/example").send({ message });
    expect(status).toBe(201);
    expect((await jobOf(body)).kwargs).toEqual({ message });
  });

  it("POST /queue/email accepts email_body and stores the defaults of the task", async () => {
    const { status, body } = await request(app)
      .post("/queue/email")
      .send({ to: "user@example.com", subject: "Test Email", email_body: "This is a test email from SAQ" });
    expect(status).toBe(201);
    expect(await jobOf(body)).toMatchObject({
      function: "sendEmailTask",
      kwargs: { to: "user@example.com", subject: "Test Email", emailBody: "This is a test email from SAQ" },
      timeout: 60,
      retries: 3,
      retryDelay: 5,
      retryBackoff: true,
    });
  });

  it("POST /queue/delayed stores a job that is due after delay_seconds, not earlier", async () => {
    const before = Date.now() / 1000;
    const { status, body } = await request(app)
      .post("/queue/delayed")
      .send({ message: "Delayed task", delay_seconds: 30 });
    const after = Date.now() / 1000;
    expect(status).toBe(201);
    const { scheduled } = await jobOf(body);
    // Due times are whole seconds, rounded up. 0.1 s is left for the difference of the two clocks.
    expect(scheduled).toBeGreaterThanOrEqual(before + 30 - 0.1);
    expect(scheduled).toBeLessThanOrEqual(after + 31 + 0.1);
  });
});

describe("a POST request with an invalid body", () => {
  const bad: [string, string, object, string[]][] = [
    ["a missing field", "/queue/example", {}, ["message"]],
    ["a field of the wrong type", "/queue/example", { message: 7 }, ["message"]],
    ["an empty text", "/queue/example", { message: "" }, ["message"]],
    ["several bad fields", "/queue/email", { to: "nobody", body: "x" }, ["to", "subject", "email_body"]],
    ["text instead of a number", "/queue/delayed", { message: "m", delay_seconds: "30" }, ["delay_seconds"]],
    ["a negative delay", "/queue/delayed", { message: "m", delay_seconds: -1 }, ["delay_seconds"]],
    [
      "a delay of more than a year",
      "/queue/delayed",
      { message: "m", delay_seconds: 1e9 },
      ["delay_seconds"],
    ],
  ];
  it.each(bad)("returns 400 and the names of the bad fields for %s", async (_what, path, sent, fields) => {
    const stored = await countJobs();
    const { status, body } = await request(app).post(path).send(sent);
    expect(status).toBe(400);
    expect(body).toEqual({
      status_code: 400,
      detail: expect.any(String),
      errors: fields.map((field) => ({ field, message: expect.any(String) })),
    });
    for (const field of fields) expect(body.detail).toContain(field);
    expect(await countJobs()).toBe(stored);
  });

  it("returns a message that says in words what is wrong", async () => {
    const { body } = await request(app).post("/queue/delayed").send({ delay_seconds: "soon" });
    expect(body.detail).toBe(
      "Invalid request: message must be a text; delay_seconds must be a number of seconds.",
    );
  });

  it("returns 400 for malformed JSON", async () => {
    const { status, body } = await request(app)
      .post("/queue/example")
      .set("Content-Type", "application/json")
      .send('{"message": ');
    expect(status).toBe(400);
    expect(body).toEqual({ status_code: 400, detail: "The request body is not valid JSON." });
  });

  it.each([
    ["a missing body", undefined, undefined],
    ["a form", "message=hi", "application/x-www-form-urlencoded"],
    ["an array", '["hi"]', "application/json"],
  ])("returns 400 for %s instead of a JSON object", async (_what, sent, type) => {
    const { status, body } = await request(app)
      .post("/queue/example")
      .set(type ? { "Content-Type": type } : {})
      .send(sent);
    expect(status).toBe(400);
    expect(body.detail).toContain("Content-Type: application/json");
  });
});

it("returns 413 for a body larger than 100 kB", async () => {
  const { status, body } = await request(app)
    .post("/queue/example")
    .send({ message: "x".repeat(101 * 1024) });
  expect(status).toBe(413);
  expect(body).toEqual({ status_code: 413, detail: "The request body is too large." });
});

describe("a route that does not exist", () => {
  it.each([
    ["get", "/nothing"],
    ["get", "/queue/example"],
    ["post", "/queue/unknown"],
  ] as const)("returns 404 for %s %s", async (method, path) => {
    const { status, body } = await request(app)[method](path);
    expect(status).toBe(404);
    expect(body).toEqual({ status_code: 404, detail: `There is no ${method.toUpperCase()} ${path}.` });
  });
});

describe("GET /queue/jobs", () => {
  it("returns a queued job", async () => {
    const { id } = await queue.enqueue("exampleTask", { message: "wait" });
    const { status, body } = await request(app).get(`/queue/jobs/${id}`);
    expect(status).toBe(200);
    expect(body).toEqual({
      job_id: id,
      function: "exampleTask",
      status: "queued",
      progress: 0,
      attempts: 0,
      queued_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      scheduled_at: null,
      started_at: null,
      completed_at: null,
      result: null,
      error: null,
    });
  });

  it("returns the time at which a job is due", async () => {
    const due = new Date("2040-01-02T03:04:05Z");
    const { id } = await queue.enqueue("delayedTask", { message: "later" }, { scheduled: due });
    const { body } = await request(app).get(`/queue/jobs/${id}`);
    expect(body.scheduled_at).toBe("2040-01-02T03:04:05.000Z");
  });

  it.each(["nobody", "%00", encodeURIComponent("a/b")])("returns 404 for the unknown id %s", async (id) => {
    const { status, body } = await request(app).get(`/queue/jobs/${id}`);
    expect(status).toBe(404);
    expect(body.detail).toMatch(/^There is no job with this id/);
  });

  it("returns 400 for an id that cannot be decoded", async () => {
    const { status, body } = await request(app).get("/queue/jobs/%E0%A4%A");
    expect(status).toBe(400);
    expect(body).toMatchObject({ status_code: 400, detail: expect.any(String) });
  });

  it("returns several jobs in the requested order and leaves out unknown ids", async () => {
    const first = await queue.enqueue("exampleTask", { message: "1" });
    const second = await queue.enqueue("exampleTask", { message: "2" });
    const { status, body } = await request(app).get(`/queue/jobs?ids=${second.id},nobody,${first.id}`);
    expect(status).toBe(200);
    expect(body.jobs.map((job: { job_id: string }) => job.job_id)).toEqual([second.id, first.id]);
  });

  it.each([
    ["no", "", 0],
    ["101", Array.from({ length: 101 }, (_, i) => `id${i}`).join(","), 101],
  ])("returns 400 for a request with %s ids", async (_what, ids, count) => {
    const { status, body } = await request(app).get(`/queue/jobs?ids=${ids}`);
    expect(status).toBe(400);
    expect(body).toEqual({
      status_code: 400,
      detail: `Give 1 to 100 ids: /queue/jobs?ids=a,b,c. Got ${count}.`,
    });
  });
});

it("POST /queue/example returns 503 when the database cannot be reached", async () => {
  const { status, body } = await request(await unreachableApp())
    .post("/queue/example")
    .send({ message: "lost" });
  expect(status).toBe(503);
  expect(body).toEqual({ status_code: 503, detail: "The database does not answer. Try again in a moment." });
});

async function countJobs(): Promise<number> {
  return Object.values(await queue.counts()).reduce((sum, count) => sum + count, 0);
}
