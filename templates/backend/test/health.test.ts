import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import request from "supertest";
import { createApp } from "../app/app.js";
import { logger } from "../app/logger.js";
import { queueRoutes, saq } from "../app/queue/index.js";
import { unreachableApp } from "./unreachable.js";
import { waitFor } from "./wait-for.js";

describe("GET /health", () => {
  const app = createApp({ saq, queueRoutes, logger });
  beforeAll(() => saq.connect());
  afterAll(() => saq.close());

  it("returns 200 and a worker count of 0 when no worker runs", async () => {
    const { status, body } = await request(app).get("/health");
    expect(status).toBe(200);
    expect(body).toEqual({ status: "ok", workers: 0, queues: [{ name: "default", workers: 0, paused: [] }] });
  });

  it("returns 200 and what is paused", async () => {
    const queue = saq.taskQueues.get("default");
    await queue.pause();
    await queue.pause({ task: "exampleTask", reason: "secret" });
    try {
      const { status, body } = await request(app).get("/health");
      expect(status).toBe(200);
      expect(body.queues).toEqual([{ name: "default", workers: 0, paused: ["queue", "task exampleTask"] }]);
    } finally {
      await queue.resume();
      await queue.resume({ task: "exampleTask" });
    }
  });

  it("counts a worker while it runs, and not after it has stopped", async () => {
    const workers = saq.workers();
    await Promise.all(workers.map((worker) => worker.start()));
    const counted = await waitFor("a live worker", async () => {
      const { body } = await request(app).get("/health");
      return body.workers > 0 && body;
    });
    expect(counted).toEqual({
      status: "ok",
      workers: 1,
      queues: [{ name: "default", workers: 1, paused: [] }],
    });
    await Promise.all(workers.map((worker) => worker.stop()));
    const { body } = await request(app).get("/health");
    expect(body.workers).toBe(0);
  });
});

it("the API of the web UI returns 503 when the database cannot be reached", async () => {
  const app = await unreachableApp();
  for (const path of ["/saq/api/queues", "/saq/api/queues/default", "/saq/api/queues/default/jobs/a"]) {
    const { status, body } = await request(app).get(path);
    expect({ path, status, body }).toEqual({
      path,
      status: 503,
      body: { status_code: 503, detail: "The database does not answer." },
    });
  }
});

it("GET /health returns 503 when the database cannot be reached", async () => {
  const { status, body } = await request(await unreachableApp()).get("/health");
  expect(status).toBe(503);
  expect(body).toEqual({ status: "unavailable", status_code: 503, detail: "The database does not answer." });
});
