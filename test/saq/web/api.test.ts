// The JSON API of the web UI: queues, lists of jobs, one job, retry and abort, with real queues in PostgreSQL.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import express from "express";
import supertest from "supertest";
import { inSeconds, type Job } from "../../../templates/backend/saq/index.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { createWebRouter } from "../../../templates/backend/saq/web/index.js";
import { segment } from "../../../templates/backend/saq/web/static/segment.js";
import { oddName, startWebApp, type WebApp } from "../support/web-app.js";

const markup = `<img src=x onerror="alert(1)"></script><script>alert(2)</script>`;
const oddKey = "a/b?c=d#e%2F ü 漢字 ..";

let app: WebApp;
beforeAll(async () => {
  app = await startWebApp();
});
beforeEach(() => app.query("delete from saq_jobs"));
afterAll(() => app.close());

const get = (path: string) => supertest(app.url).get(path);
const post = (path: string) => supertest(app.url).post(path).set("X-SAQ-CSRF", "1");
const jobPath = (key: string, queue = "default") =>
  `/api/queues/${encodeURIComponent(queue)}/jobs/${encodeURIComponent(key)}`;

const enqueue = async (payload: object = {}, options: object = {}): Promise<Job> => {
  const job = await app.queue.enqueue("echo", payload, options);
  if (!job) throw new Error("The job was not stored.");
  return job;
};

/** Sets the status of a job, in the column and in the document, without a worker. */
const putInto = (key: string, status: string, more: object = {}) =>
  app.query(
    `update saq_jobs set status = $2, job = convert_to((convert_from(job, 'UTF8')::jsonb || $3)::text, 'UTF8')
     where key = $1`,
    [key, status, JSON.stringify({ status, ...more })],
  );

const statusOf = async (key: string) => (await app.queue.job(key))?.status;

describe("queues", () => {
  it("S-60: lists every queue with its counts and no jobs", async () => {
    await enqueue();
    const { status, type, body } = await get("/api/queues");
    expect([status, type]).toEqual([200, "application/json"]);
    expect(body).toEqual({
      queues: [
        {
          name: "default",
          queued: 1,
          active: 0,
          scheduled: 0,
          counts: { queued: 1, scheduled: 0, active: 0, aborting: 0, aborted: 0, failed: 0, complete: 0 },
          workers: {},
          jobs: [],
        },
        expect.objectContaining({ name: oddName, queued: 0, jobs: [] }),
      ],
    });
  });

  it("S-60: returns each live worker with the metadata of its queue", async () => {
    const stats = { complete: 1, failed: 0, retried: 0, aborted: 0, uptime: 5 };
    const worker = { workerId: "w1", stats, metadata: { region: "eu" }, queueKey: "default" };
    await app.queue.broker.saveWorker(worker, 60);
    try {
      // A router of its own, because the other one caches its answer for two seconds.
      const router = createWebRouter({ queues: [app.queue], path: "/saq", logger: silentLogger });
      const { body } = await supertest(express().use("/saq", router)).get("/saq/api/queues");
      expect(body.queues[0].workers).toEqual({
        w1: { stats, metadata: { region: "eu" }, queue_key: "default" },
      });
    } finally {
      await app.queue.broker.removeWorker("w1");
    }
  });

  it("counts the jobs once for all requests within two seconds, and again after a change", async () => {
    let counted = 0;
    const queue = Object.create(app.queue) as typeof app.queue;
    const info = app.queue.info.bind(app.queue);
    queue.info = (options) => {
      counted++;
      return info(options);
    };
    queue.list = app.queue.list.bind(app.queue);
    queue.abort = app.queue.abort.bind(app.queue);
    const { key } = await enqueue();
    const router = createWebRouter({ queues: [queue], path: "/saq", logger: silentLogger });
    const asked = supertest(express().use("/saq", router));
    const pages = ["/saq/api/queues", "/saq/api/queues/default?status=queued"].flatMap((path) =>
      Array.from({ length: 10 }, () => asked.get(path)),
    );
    const began = performance.now();
    for (const { status } of await Promise.all(pages)) expect(status).toBe(200);
    expect(counted).toBeLessThanOrEqual(1 + Math.ceil((performance.now() - began) / 2_000));
    const before = counted;
    await asked.post(`/saq/api/queues/default/jobs/${key}/abort`).set("X-SAQ-CSRF", "1").expect(202);
    const { body } = await asked.get("/saq/api/queues");
    expect([body.queues[0].counts.aborted, counted]).toEqual([1, before + 1]);
  });

  it("S-61: shows one queue with the documents of its unfinished jobs", async () => {
    const waiting = await enqueue({ message: markup });
    const done = await enqueue();
    await putInto(done.key, "complete");
    const { status, body } = await get("/api/queues/default");
    expect(status).toBe(200);
    expect(body.queue).toMatchObject({ name: "default", queued: 1 });
    expect(body.queue.jobs).toEqual([waiting.toDocument()]);
    expect(body.queue.jobs[0].kwargs).toEqual({ message: markup });
  });

  it("S-61: finds a queue whose name must be encoded", async () => {
    const { status, body } = await get(`/api/queues/${encodeURIComponent(oddName)}`);
    expect([status, body.queue.name]).toEqual([200, oddName]);
  });

  it.each([".", "..", "~", "~.", "~~..", "...", "~a"])(
    "S-62: finds and aborts the job with key %j, although browsers and fetch change such a path",
    async (key) => {
      const job = await enqueue({}, { key });
      const url = `${app.url}/api/queues/default/jobs/${segment(key)}`;
      const { job: found } = (await (await fetch(url)).json()) as { job: { key: string } };
      expect(found.key).toBe(key);
      const aborted = await fetch(`${url}/abort`, { method: "POST", headers: { "X-SAQ-CSRF": "1" } });
      expect([aborted.status, await statusOf(job.key)]).toEqual([202, "aborted"]);
    },
  );

  it("S-61: returns 404 for a queue that is not configured", async () => {
    const { status, body } = await get("/api/queues/no%2Fsuch");
    expect([status, body]).toEqual([404, { status_code: 404, detail: "Could not find the no/such queue" }]);
  });
});

describe("the list of a queue's jobs", () => {
  it("S-69: filters by each state, and separates due jobs from scheduled jobs", async () => {
    const keys: Record<string, string> = {};
    for (const state of ["active", "aborting", "complete", "failed", "aborted"]) {
      keys[state] = (await enqueue()).key;
      await putInto(keys[state], state);
    }
    keys.queued = (await enqueue()).key;
    keys.scheduled = (await enqueue({}, { scheduled: inSeconds(3600) })).key;
    for (const [state, key] of Object.entries(keys)) {
      const { status, body } = await get(`/api/queues/default?status=${state}`);
      expect([state, status, body.queue.jobs.map((job: Job) => job.key)]).toEqual([state, 200, [key]]);
    }
    const both = await get("/api/queues/default?status=failed,scheduled&status=queued");
    expect(both.body.queue.jobs.map((job: Job) => job.key)).toEqual([
      keys.scheduled,
      keys.queued,
      keys.failed,
    ]);
  });

  it("S-69: pages through the jobs, newest first", async () => {
    const keys: string[] = [];
    for (let index = 0; index < 5; index++) keys.unshift((await enqueue()).key);
    for (let index = 0; index < 3; index++) await enqueue({}, { scheduled: inSeconds(3600) });
    const page = async (query: string) =>
      (await get(`/api/queues/default?${query}`)).body.queue.jobs.map((job: Job) => job.key);
    expect(await page("status=queued&offset=0&limit=2")).toEqual(keys.slice(0, 2));
    expect(await page("status=queued&offset=2&limit=2")).toEqual(keys.slice(2, 4));
    expect(await page("status=queued&offset=4&limit=2")).toEqual(keys.slice(4));
    expect(await page("status=queued&offset=6&limit=2")).toEqual([]);
    expect(await page("status=queued,scheduled&offset=3")).toEqual(keys);
    expect(await page("offset=7&limit=1")).toEqual(keys.slice(4));
  });

  it.each([
    [
      "status=new",
      'status must be one of queued, scheduled, active, aborting, complete, failed, aborted, got "new"',
    ],
    [
      "status=",
      'status must be one of queued, scheduled, active, aborting, complete, failed, aborted, got ""',
    ],
    ["limit=101", 'limit must be a whole number from 1 to 100, got "101"'],
    ["limit=0", 'limit must be a whole number from 1 to 100, got "0"'],
    ["limit=1e1", 'limit must be a whole number from 1 to 100, got "1e1"'],
    ["offset=-1", `offset must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}, got "-1"`],
    ["offset=99999999999999999999", /^offset must be a whole number from 0 to /],
  ])("S-69: refuses ?%s", async (query, detail) => {
    const { status, body } = await get(`/api/queues/default?${query}`);
    expect([status, body.status_code]).toEqual([400, 400]);
    if (typeof detail === "string") expect(body.detail).toBe(detail);
    else expect(body.detail).toMatch(detail);
  });
});

describe("one job", () => {
  it("S-62: returns the document, with kwargs and result as JSON text", async () => {
    const job = await enqueue({ message: markup });
    await putInto(job.key, "complete", { result: { answer: markup } });
    const { status, body } = await get(jobPath(job.key));
    expect(status).toBe(200);
    expect(body.job).toMatchObject({
      key: job.key,
      function: "echo",
      queue: "default",
      status: "complete",
      kwargs: JSON.stringify({ message: markup }),
      result: JSON.stringify({ answer: markup }),
    });
  });

  it("S-62: a job without payload and result has the text null for both", async () => {
    const job = await app.queue.enqueue("patient", undefined, {});
    const { body } = await get(jobPath(String(job?.key)));
    expect(body.job).toMatchObject({ kwargs: "null", result: "null", status: "queued" });
  });

  it("returns the history of failed attempts, and an empty one in place of anything else", async () => {
    const attempt = { time: 5, attempt: 1, workerId: "w1", duration: 7, error: markup };
    const { key } = await enqueue();
    await putInto(key, "failed", { meta: { attemptHistory: [attempt, "garbage"], own: 1 } });
    const { body } = await get(jobPath(key));
    expect(body.job).toMatchObject({ history: [attempt], meta: { own: 1 } });
    const other = await enqueue();
    expect((await get(jobPath(other.key))).body.job.history).toEqual([]);
    const { body: list } = await get("/api/queues/default?status=failed");
    expect(list.queue.jobs[0]).not.toHaveProperty("history");
  });

  it("V-4: shows the status of the column, not that of the document", async () => {
    const { key } = await enqueue();
    await app.query("update saq_jobs set status = 'aborting' where key = $1", [key]);
    expect((await get(jobPath(key))).body.job.status).toBe("aborting");
    expect((await get("/api/queues/default?status=aborting")).body.queue.jobs[0].status).toBe("aborting");
  });

  it("D-82: opens, retries and aborts a job whose key and queue must be encoded", async () => {
    await app.odd.enqueue("echo", {}, { key: oddKey });
    const path = jobPath(oddKey, oddName);
    expect((await get(path)).body.job.key).toBe(oddKey);
    expect((await post(`${path}/abort`)).status).toBe(202);
    expect((await app.odd.job(oddKey))?.status).toBe("aborted");
    expect((await post(`${path}/retry`)).status).toBe(202);
    expect((await app.odd.job(oddKey))?.status).toBe("queued");
  });

  it("S-62: returns 404 for an unknown key, an unknown queue, and another queue's job", async () => {
    const { key } = await enqueue();
    expect((await get(jobPath(markup))).body).toEqual({
      status_code: 404,
      detail: `Could not find job ID ${markup}`,
    });
    expect((await get(jobPath(key, oddName))).status).toBe(404);
    expect((await get(jobPath(key, "none"))).body.detail).toBe("Could not find the none queue");
  });
});

describe("retry and abort", () => {
  it.each(["complete", "failed", "aborted"])(
    "S-63, D-26: retrying a job that is %s queues it again and resets it",
    async (state) => {
      const { key } = await enqueue();
      await putInto(key, state, { attempts: 3, result: 7, error: "broken", completed: 5 });
      const { status, body } = await post(`${jobPath(key)}/retry`);
      expect([status, body]).toEqual([202, {}]);
      expect(await app.queue.job(key)).toMatchObject({
        status: "queued",
        attempts: 0,
        result: null,
        completed: 0,
        error: "retried from ui",
      });
    },
  );

  it.each(["queued", "active", "aborting"])(
    "D-26: retrying a job that is %s is refused with 409",
    async (state) => {
      const { key } = await enqueue();
      await putInto(key, state);
      const { status, body } = await post(`${jobPath(key)}/retry`);
      expect([status, body]).toEqual([
        409,
        {
          status_code: 409,
          detail: `Job ${key} is not finished; only a complete, failed or aborted job can be retried`,
        },
      ]);
      expect(await statusOf(key)).toBe(state);
    },
  );

  it("D-3: retrying a row whose document cannot be read is refused with 409", async () => {
    const { key } = await enqueue();
    await app.query("update saq_jobs set status = 'failed', job = 'no job' where key = $1", [key]);
    const { status, body } = await post(`${jobPath(key)}/retry`);
    expect([status, body.detail]).toEqual([
      409,
      `The stored document of job ${key} cannot be read, so it cannot be retried`,
    ]);
    const { body: list } = await get("/api/queues/default?status=failed");
    expect(list.queue.jobs).toEqual([expect.objectContaining({ key, function: "(unreadable)" })]);
  });

  it.each([
    ["queued", "aborted"],
    ["active", "aborting"],
    ["aborting", "aborting"],
  ])("S-64: aborting a job that is %s leaves it %s", async (state, after) => {
    const { key } = await enqueue();
    await putInto(key, state);
    const { status, body } = await post(`${jobPath(key)}/abort`);
    expect([status, body]).toEqual([202, {}]);
    expect(await statusOf(key)).toBe(after);
    if (state !== "aborting") expect((await app.queue.job(key))?.error).toBe("aborted from ui");
  });

  it.each(["complete", "failed", "aborted"])(
    "D-23: aborting a job that is %s is refused with 409",
    async (state) => {
      const { key } = await enqueue();
      await putInto(key, state);
      const { status, body } = await post(`${jobPath(key)}/abort`);
      expect([status, body]).toEqual([
        409,
        { status_code: 409, detail: `Job ${key} is finished; only a job that waits or runs can be aborted` },
      ]);
      expect(await statusOf(key)).toBe(state);
    },
  );

  it.each([
    ["retry", "failed"],
    ["abort", "queued"],
  ])("S-63, S-64: %s is refused with 409 while another transaction holds the row", async (action, state) => {
    const { key } = await enqueue();
    await putInto(key, state);
    const holder = await app.connect();
    await holder.query("begin");
    await holder.query("select 1 from saq_jobs where key = $1 for update", [key]);
    const { status, body } = await post(`${jobPath(key)}/${action}`);
    expect([status, body.detail]).toEqual([
      409,
      expect.stringContaining(`Job "${key}" is held by a transaction`),
    ]);
    await holder.end();
    expect(await statusOf(key)).toBe(state);
  });

  it.each(["retry", "abort"])("S-63, S-64: %s returns 404 for an unknown job or queue", async (action) => {
    const { status, body } = await post(`${jobPath("none")}/${action}`);
    expect([status, body]).toEqual([404, { status_code: 404, detail: "Could not find job ID none" }]);
    expect((await post(`${jobPath("none", "none")}/${action}`)).body.detail).toBe(
      "Could not find the none queue",
    );
  });
});
