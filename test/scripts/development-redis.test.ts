import { rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { createClient } from "@redis/client";
import { clusterStatus, destroyCluster, isFree } from "../../templates/scripts/embedded-postgres.js";
import { ensureEnv, writeEnv } from "../../templates/scripts/env.js";
import { runningRedis } from "../../templates/scripts/redis-process.js";
import { freePort } from "../support/free-port.js";
import { redisMissing } from "../support/redis.js";
import { openFolder } from "./support/folders.js";
import { processesOf, Running } from "./support/running.js";
import { completeApp, type ScratchApp } from "./support/scratch-app.js";

// The tests start many programs one after the other, on a machine that may be busy.
jest.setTimeout(600_000);

if (redisMissing) console.warn(`The tests of make dev-all with Redis are skipped: ${redisMissing}.`);
const withServer = redisMissing ? describe.skip : describe;

withServer("an installed application whose queue is on Redis", () => {
  let app: ScratchApp;
  let api: string;
  let redisPort: number;
  const running: Running[] = [];
  const dataDir = () => join(app.root, ".data/pg18");

  const start = (command: string[], environment: Record<string, string> = {}) => {
    const process_ = new Running(app.root, command, environment);
    running.push(process_);
    return process_;
  };
  const allUp = async (all: Running) => {
    await all.shows("API listening");
    await all.shows("Worker starting");
  };
  const enqueue = async (path: string, body: object): Promise<string> => {
    const response = await fetch(`${api}/queue/${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    expect(response.status).toBe(201);
    return ((await response.json()) as { job_id: string }).job_id;
  };
  /** Returns the ids of the jobs in Redis, without the next tick of the recurring task. */
  const storedJobs = async () => {
    const client = createClient({ RESP: 2, socket: { host: "127.0.0.1", port: redisPort } });
    await client.connect();
    const keys = await client.keys("saq:job:default:*");
    client.destroy();
    return keys.filter((key) => !key.includes(":cron:")).sort();
  };
  const serversOf = () => ({
    redis: runningRedis(app.root) !== undefined,
    database: clusterStatus({ dataDir: dataDir() }).running,
  });

  beforeAll(async () => {
    app = completeApp();
    ensureEnv(app.root);
    const ports: number[] = [];
    for (const name of ["PORT", "FRONTEND_PORT", "DB_PORT"]) {
      const port = await freePort();
      ports.push(port);
      writeEnv(app.root, name, String(port));
    }
    redisPort = await freePort();
    writeEnv(app.root, "QUEUE_DSN", `redis://localhost:${redisPort}/0`);
    api = `http://localhost:${ports[0]}`;
  });

  afterEach(async () => {
    for (const process_ of running.splice(0)) {
      try {
        process_.interrupt();
      } catch {
        continue;
      }
      await process_.ended();
    }
    // Without this, one failed test would let all others fail.
    for (const target of ["redis-stop", "db-stop"]) await app.run(target);
  });

  afterAll(async () => {
    await destroyCluster({ dataDir: dataDir() });
    rmSync(app.root, { recursive: true });
  });

  it("make dev-all starts Redis, jobs are stored there, and one Ctrl-C stops it after the worker and before the database", async () => {
    const all = start(["make", "dev-all"]);
    await allUp(all);
    const id = await enqueue("example", { message: "on Redis" });
    await all.shows("Finished exampleTask");
    const delayed = await enqueue("delayed", { message: "later", delay_seconds: 3600 });
    expect(await (await fetch(`${api}/queue/jobs/${id}`)).json()).toMatchObject({ status: "complete" });
    expect(await storedJobs()).toEqual([`saq:job:default:${delayed}`, `saq:job:default:${id}`].sort());
    all.interrupt();
    await all.ended();
    expect(all.output).toMatch(
      /Worker stopped[\s\S]*Redis \(redis-server\) was stopped\. Its data is kept\.\nPostgreSQL \(embedded\) was stopped\./,
    );
    expect(all.output).not.toMatch(/ECONNREFUSED|Error:|does not answer/);
    expect(serversOf()).toEqual({ redis: false, database: false });
    expect(await isFree(redisPort)).toBe(true);
    expect(processesOf(app.root)).toEqual([]);
  });

  it("keeps its jobs for the next make dev-all, which does not stop a Redis that was already running", async () => {
    await app.run("redis-start");
    expect(await storedJobs()).toHaveLength(2);
    const all = start(["make", "dev-all"]);
    await allUp(all);
    all.interrupt();
    await all.ended();
    expect(serversOf()).toEqual({ redis: true, database: false });
  });

  it("make dev-all stops a Redis that a killed dev-all has left running", async () => {
    const all = start(["node", "scripts/dev-all.js"]);
    await allUp(all);
    all.kill("SIGKILL");
    await all.ended();
    // The API and the worker notice the end of dev-all by themselves.
    const left = () => processesOf(app.root).filter((command) => !/postgres|redis-server/.test(command));
    while (left().length > 0) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(serversOf()).toEqual({ redis: true, database: true });
    const next = start(["node", "scripts/dev-all.js"]);
    await allUp(next);
    expect(next.output.match(/A make dev-all that was killed left it running\./g)).toHaveLength(2);
    next.interrupt();
    await next.ended();
    expect(serversOf()).toEqual({ redis: false, database: false });
  });

  it("make dev-backend and dev-worker say to run make redis-start when Redis does not answer", async () => {
    await app.run("db-start");
    for (const target of ["dev-backend", "dev-worker"]) {
      const { code, stderr } = await app.run(target);
      expect(code).not.toBe(0);
      expect(stderr).toContain(
        `Redis does not answer at localhost:${redisPort}/0. Start it: make redis-start`,
      );
    }
  });

  it("make dev-worker does not say to run make redis-start for a Redis that the project does not start", async () => {
    await app.run("db-start");
    const before = app.env().QUEUE_DSN ?? "";
    writeEnv(app.root, "QUEUE_DSN", `redis+sentinel://127.0.0.1:${redisPort}/mymaster/0`);
    try {
      const { code, stderr } = await app.run("dev-worker");
      expect(code).not.toBe(0);
      expect(stderr).toContain(
        `No Redis Sentinel answers at 127.0.0.1:${redisPort}/mymaster/0 (QUEUE_DSN from .env).\n`,
      );
      expect(stderr).not.toContain("redis-start");
    } finally {
      writeEnv(app.root, "QUEUE_DSN", before);
    }
  });

  it("make dev-all stops the database again when there is neither redis-server nor Docker", async () => {
    const bin = openFolder();
    symlinkSync(process.execPath, join(bin, "node"));
    rmSync(join(app.root, ".data/redis-mode"));
    const { code, stderr } = await app.run("dev-all.js", { PATH: bin });
    rmSync(bin, { recursive: true });
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^The queue is on Redis \(QUEUE_DSN in \.env\), but neither redis-server nor Docker/,
    );
    expect(serversOf()).toEqual({ redis: false, database: false });
  });
});
