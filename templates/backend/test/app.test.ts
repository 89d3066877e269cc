import { EventEmitter, once } from "node:events";
import http from "node:http";
import { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { Router } from "express";
import { pino } from "pino";
import request from "supertest";
import { createApp } from "../app/app.js";
import { basicAuth } from "../app/basic-auth.js";
import { logger, logOptions } from "../app/logger.js";
import { saqConfig } from "../app/queue/config.js";
import { queueRoutes, saq } from "../app/queue/index.js";
import { createSaq, defineSaq, Queue } from "../saq/index.js";
import { freePort } from "./unreachable.js";

beforeAll(() => saq.connect());
afterAll(() => saq.close());

/** Creates the API with the test's own routes below /queue. Returns it with the lines that it logs. */
function appWith(routes: Router) {
  const lines: Record<string, unknown>[] = [];
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  const app = createApp({
    saq,
    queueRoutes: routes,
    logger: pino({ ...logOptions, level: "debug" }, stream),
  });
  return { app, lines };
}

describe("an error in a handler", () => {
  const routes = Router();
  routes.get("/throws", async () => {
    throw new Error("the password is hunter2");
  });
  routes.get("/half", async (_req, res) => {
    res.write("half an ans");
    throw new Error("too late");
  });

  it("returns 500 and logs the error, but does not show it to the client", async () => {
    const { app, lines } = appWith(routes);
    const { status, body } = await request(app).get("/queue/throws");
    expect(status).toBe(500);
    expect(body).toEqual({ status_code: 500, detail: "The server could not process this request." });
    expect(lines).toMatchObject([
      {
        level: 50,
        msg: "GET /queue/throws 500: the password is hunter2",
        err: { type: "Error", stack: expect.stringContaining("app.test.ts") },
      },
    ]);
  });

  it("returns 500, not 503, when a service other than the database refuses the connection", async () => {
    const port = await freePort();
    const calling = Router();
    calling.get("/calls", async (_req, res) => res.json(await fetch(`http://127.0.0.1:${port}/`)));
    const { app, lines } = appWith(calling);
    const { status, body } = await request(app).get("/queue/calls");
    expect({ status, detail: body.detail }).toEqual({
      status: 500,
      detail: "The server could not process this request.",
    });
    expect(lines).toMatchObject([{ level: 50, err: { type: "TypeError" } }]);
  });

  it("returns 503 when the database refuses the connection, and the handler can read the cause", async () => {
    const far = Queue.fromUrl(`postgresql://postgres@127.0.0.1:${await freePort()}/gone`, { name: "far" });
    const failing = Router();
    const caught: unknown[] = [];
    failing.get("/counts", async (_req, res) => {
      try {
        res.json(await far.counts());
      } catch (error) {
        caught.push(error);
        throw error;
      }
    });
    const { app, lines } = appWith(failing);
    const { status, body } = await request(app).get("/queue/counts");
    expect({ status, body }).toEqual({
      status: 503,
      body: { status_code: 503, detail: "The database does not answer. Try again in a moment." },
    });
    expect(caught).toMatchObject([{ code: "database_unavailable", cause: { code: "ECONNREFUSED" } }]);
    expect(lines).toMatchObject([{ level: 50 }]);
    expect(lines[0]).not.toHaveProperty("err");
    await far.close();
  });

  it("closes the connection when the response has already begun", async () => {
    const { app, lines } = appWith(routes);
    await expect(request(app).get("/queue/half")).rejects.toThrow("aborted");
    expect(lines).toMatchObject([
      { level: 50, msg: "GET /queue/half 200: too late", err: { type: "Error" } },
    ]);
  });
});

it("a request that the client aborts is logged as aborted, not as completed", async () => {
  const routes = Router();
  const handler = new EventEmitter();
  routes.get("/slow", (_req, res) => {
    res.once("close", () => handler.emit("closed"));
    handler.emit("reached");
  });
  const { app, lines } = appWith(routes);
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const reached = once(handler, "reached");
  const closed = once(handler, "closed");
  const client = http.get({ port, host: "127.0.0.1", path: "/queue/slow" }).on("error", () => undefined);
  await reached;
  client.destroy();
  await closed;
  await new Promise((resolve) => server.close(resolve));
  expect(lines).toMatchObject([
    { level: 40, msg: expect.stringMatching(/^GET \/queue\/slow aborted by the client \(\d+ ms\)$/) },
  ]);
});

it("gives handlers the queues in req.taskQueues and app.locals.taskQueues", async () => {
  const routes = Router();
  routes.get("/names", (req, res) => {
    res.json([req.taskQueues, req.app.locals.taskQueues].map((queues) => queues.get("default").name));
  });
  const { body } = await request(appWith(routes).app).get("/queue/names");
  expect(body).toEqual(["default", "default"]);
});

it("sends the security headers of helmet and no X-Powered-By header", async () => {
  const { headers } = await request(createApp({ saq, queueRoutes, logger })).get("/health");
  expect(headers).toMatchObject({ "x-content-type-options": "nosniff", "x-frame-options": "SAMEORIGIN" });
  expect(headers).not.toHaveProperty("x-powered-by");
});

it("logs each request once, without its secrets", async () => {
  const { app, lines } = appWith(queueRoutes);
  await request(app)
    .post("/queue/example")
    .set({ Authorization: "Bearer hunter2", Cookie: "session=hunter2", "X-Api-Key": "hunter2" })
    .send({ message: "hi" });
  await request(app).get("/health");
  expect(lines.map(({ level, msg }) => [level, String(msg).replace(/ \(.*/, "")])).toEqual([
    [30, "POST /queue/example 201"],
    [20, "GET /health 200"],
  ]);
  expect(lines[0]).toMatchObject({
    req: { method: "POST", url: "/queue/example", headers: { authorization: "[Redacted]" } },
    res: { statusCode: 201 },
  });
  expect(JSON.stringify(lines)).not.toContain("hunter2");
});

describe("the web UI", () => {
  const auth = { user: "admin", password: "correct horse" };
  const guarded = createSaq({ ...saqConfig, web: { ...saqConfig.web, guards: [basicAuth(auth)] } });
  afterAll(() => guarded.close());

  it("is served at /saq outside production", async () => {
    const { status, text } = await request(createApp({ saq, queueRoutes, logger })).get("/saq");
    expect(status).toBe(200);
    expect(text).toContain("<!doctype html>");
  });

  it("accepts only requests with a local Host header when no login is set", async () => {
    const app = createApp({ saq, queueRoutes, logger });
    const { status, body } = await request(app).get("/saq/api/queues").set("Host", "rebound.example:8000");
    expect(status).toBe(403);
    expect(body).toEqual({ status_code: 403, detail: expect.stringContaining("rebound.example") });
    for (const host of ["localhost:8000", "127.0.0.1", "[::1]:8000", "app.localhost"]) {
      expect((await request(app).get("/saq/api/queues").set("Host", host)).status).toBe(200);
    }
  });

  it("cannot be enabled in production without a guard", () => {
    const environment = process.env.NODE_ENV;
    process.env.NODE_ENV = "production";
    try {
      expect(() => defineSaq({ queues: saqConfig.queues, web: { enabled: true } })).toThrow("needs a guard");
    } finally {
      process.env.NODE_ENV = environment;
    }
  });

  it("asks for the name and password when they are set; the rest of the API does not", async () => {
    const app = createApp({ saq: guarded, queueRoutes, logger });
    for (const path of ["/saq", "/saq/api/queues"]) {
      const { status, headers, body } = await request(app).get(path);
      expect(status).toBe(401);
      expect(headers["www-authenticate"]).toBe('Basic realm="saq", charset="UTF-8"');
      expect(body).toMatchObject({ status_code: 401, detail: expect.any(String) });
      expect((await request(app).get(path).auth(auth.user, auth.password)).status).toBe(200);
    }
    expect((await request(app).get("/health")).status).toBe(200);
  });

  it.each([
    ["a wrong password", "Basic", "admin:wrong"],
    ["a wrong name", "Basic", "root:correct horse"],
    ["empty credentials", "Basic", ""],
    ["a scheme other than Basic", "Bearer", "admin:correct horse"],
  ])("refuses %s", async (_what, scheme, credentials) => {
    const { status } = await request(createApp({ saq: guarded, queueRoutes, logger }))
      .get("/saq/api/queues")
      .set("Authorization", `${scheme} ${Buffer.from(credentials).toString("base64")}`);
    expect(status).toBe(401);
  });
});
