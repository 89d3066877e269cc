import { randomBytes } from "node:crypto";
import { describe, expect, it, jest } from "@jest/globals";
import express from "express";
import supertest from "supertest";
import { type CronJob, type CronOptions, cronJob } from "../../../templates/backend/saq/config/index.js";
import { SaqError } from "../../../templates/backend/saq/errors.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { createWebRouter } from "../../../templates/backend/saq/web/index.js";
import { LogBook } from "../support/log-book.js";
import { eventually } from "../support/processes/child.js";
import { openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";
import { itOnPostgres } from "../support/test-broker.js";

const database = useDatabase();
const daily = "0 3 * * *";
const everySecond = "* * * * * *";

let names = 0;
const freshName = () => `schedule${++names}`;

/** Opens a queue with one scheduled task, which notes the keys of its runs. */
function open(
  options: Partial<CronOptions> = {},
  { url = database.url, queueName, logger }: { url?: string; queueName?: string; logger?: LogBook } = {},
) {
  const name = options.name ?? freshName();
  const runs: string[] = [];
  const note = async (ctx: Context, _payload: { fail?: boolean }) => {
    runs.push(ctx.job.key);
    if (_payload.fail) throw new Error("no");
  };
  const job: CronJob<"note", undefined> = cronJob("note", { cron: daily, ...options, name });
  const queue = openQueue(
    { url },
    { note },
    {
      scheduledTasks: [job],
      ...(queueName ? { name: queueName } : {}),
      ...(logger ? { logger } : {}),
    },
  );
  return { queue, runs, name, key: `cron:${name}` };
}

describe("queue.schedules", () => {
  it("lists every entry, even before any worker has run", async () => {
    const { queue, name } = open({ timezone: "Asia/Tokyo", misfire: "once" });
    const [info, ...others] = await queue.schedules.list();
    expect(others).toEqual([]);
    expect(info).toEqual({
      name,
      task: "note",
      cron: daily,
      timezone: "Asia/Tokyo",
      overlap: "skip",
      misfire: "once",
      paused: false,
      nextRun: queue.config.scheduledTasks?.[0]?.cron.next(Date.now() / 1_000),
      lastRun: null,
    });
    const plain = openQueue(database, { note: () => {} });
    expect(await plain.schedules.list()).toEqual([]);
  });

  it("lists how the last run ended, also when the next tick has replaced its row", async () => {
    const { queue, runs, key } = open({ cron: everySecond });
    await startWorker(queue);
    await until(async () => runs.length >= 2);
    const endedRun = async ({ schedules }: Pick<typeof queue, "schedules">) => {
      const [info] = await schedules.list();
      return info?.lastRun?.status === "complete" ? info.lastRun : null;
    };
    await until(async () => (await endedRun(queue)) !== null);
    const apart = open({ cron: everySecond, overlap: "allow" });
    await startWorker(apart.queue);
    await until(async () => (await endedRun(apart.queue)) !== null);
    // The run of the next tick may be going on.
    const lastRun = await eventually("no run is going on", () => endedRun(queue));
    expect(lastRun).toMatchObject({ key, error: null });
    expect(lastRun.completed).toBeGreaterThan(Date.now() - 60_000);
  });

  it("run: starts a job at once with a key of its own, and does not change the next tick", async () => {
    const { queue, runs, key, name } = open({ timeout: 33, meta: { team: "a" } });
    const { ended } = await startWorker(queue);
    await until(async () => (await rowOf(database, key)) !== undefined);
    const before = await rowOf(database, key);
    const job = await queue.schedules.run(name);
    await ended(job.key);
    expect(runs).toEqual([job.key]);
    expect(job).toMatchObject({ timeout: 33, meta: { team: "a", schedule: name } });
    expect(await rowOf(database, key)).toEqual(before);
  });

  it("pause: deletes the waiting tick and stops the schedule in every worker, also after restarts, until resume", async () => {
    const { queue, name, key } = open();
    const { worker } = await startWorker(queue);
    await until(async () => (await rowOf(database, key)) !== undefined);
    await queue.schedules.pause(name);
    expect(await rowOf(database, key)).toBeUndefined();
    await queue.schedules.pause(name);
    expect(await queue.schedules.list()).toMatchObject([{ paused: true, nextRun: null }]);
    await worker.stop();
    const peer = open({ name }, { queueName: queue.name });
    const second = open({ name: freshName() }, { queueName: `${queue.name}b` });
    await startWorker(peer.queue);
    await startWorker(second.queue);
    await until(async () => (await rowOf(database, second.key)) !== undefined);
    expect(await rowOf(database, key)).toBeUndefined();
    await peer.queue.schedules.resume(name);
    await until(async () => (await rowOf(database, key))?.status === "queued");
    expect(await queue.schedules.list()).toMatchObject([{ paused: false }]);
  });

  it("resume: the workers that stored the deleted tick store it again, for the same time", async () => {
    const { queue, name, key } = open();
    await startWorker(queue);
    await until(async () => (await rowOf(database, key)) !== undefined);
    const before = await rowOf(database, key);
    await queue.schedules.pause(name);
    await queue.schedules.resume(name);
    expect(await rowOf(database, key)).toBeUndefined();
    const { now } = queue.broker;
    jest.spyOn(queue.broker, "now").mockImplementation(() => now.call(queue.broker) + 11_000);
    await until(async () => (await rowOf(database, key)) !== undefined);
    expect((await rowOf(database, key))?.scheduled).toBe(before?.scheduled);
  });

  it("pause: until resume, only jobs that are started by hand run", async () => {
    const { queue, name, runs } = open({ cron: everySecond });
    await startWorker(queue);
    await until(async () => runs.length > 0);
    await queue.schedules.pause(name);
    const before = runs.length;
    // The run of a tick that was due at the moment of the pause may still begin.
    await new Promise((resolve) => setTimeout(resolve, 2_200));
    expect(runs.length).toBeLessThanOrEqual(before + 1);
    const job = await queue.schedules.run(name);
    await until(async () => runs.includes(job.key));
    await queue.schedules.resume(name);
    const paused = runs.length;
    await until(async () => runs.length > paused);
  });

  it("after close, every call rejects with queue_closed, as the other calls of a closed queue do", async () => {
    const { queue, name } = open();
    const { schedules } = queue;
    // Only the first call connects, so a later call has to find out by itself that the queue is closed.
    await schedules.pause(name);
    await schedules.resume(name);
    await queue.close();
    const calls = [
      () => schedules.pause(name),
      () => schedules.resume(name),
      () => schedules.list(),
      () => schedules.run(name),
      () => queue.broker.schedules.list(),
    ];
    for (const call of calls) {
      const rejected = call();
      await expect(rejected).rejects.toThrow(SaqError);
      await expect(rejected).rejects.toMatchObject({
        code: "queue_closed",
        message: "The queue was closed and cannot be used again",
      });
    }
  });

  it("refuses an unknown name and names the existing entries", async () => {
    const { queue, name } = open();
    const unknown = `Queue "${queue.name}" has no scheduled task "nightly" (known: ${name})`;
    await expect(queue.schedules.pause("nightly")).rejects.toThrow(unknown);
    await expect(queue.schedules.run("nightly")).rejects.toThrow(unknown);
  });
});

describe("the table saq_cron", () => {
  itOnPostgres(
    "is optional: if the role may not create it, tasks run with a warning, and pause is refused",
    async () => {
      const role = `saq_cron_${randomBytes(4).toString("hex")}`;
      // The queue of another test may have made the table already.
      await openQueue(database, { note: () => {} }).connect();
      await database.query("drop table if exists saq_cron");
      await database.query("revoke create on schema public from public");
      await database.query(`create role ${role} login password 'secret'`);
      await database.query(`grant usage on schema public to ${role}`);
      await database.query(`grant select, insert, update, delete on all tables in schema public to ${role}`);
      await database.query(`grant usage on all sequences in schema public to ${role}`);
      const url = new URL(database.url);
      [url.username, url.password] = [role, "secret"];
      try {
        const log = new LogBook();
        const { queue, name, runs, key } = open({ cron: everySecond }, { url: url.href, logger: log });
        const { worker } = await startWorker(queue);
        await until(async () => runs.length >= 2);
        await log.saw(
          ({ level, message }) => level === "warn" && message.startsWith("scheduled tasks run, but"),
        );
        await expect(queue.schedules.pause(name)).rejects.toThrow(
          `"${name}" cannot be paused: this is stored in the table saq_cron, which the database role of this process may`,
        );
        expect(await queue.schedules.list()).toMatchObject([{ paused: false, lastRun: { key } }]);
        await worker.stop();
      } finally {
        await database.query(`drop owned by ${role}`);
        await database.query(`drop role ${role}`);
      }
    },
  );

  itOnPostgres("is not changed if it belongs to another program", async () => {
    await openQueue(database, { note: () => {} }).connect();
    await database.query("drop table if exists saq_cron; create table saq_cron (theirs integer)");
    const { queue, key } = open();
    await startWorker(queue);
    await until(async () => (await rowOf(database, key)) !== undefined);
    expect(await database.query("select * from saq_cron")).toEqual([]);
    await database.query("drop table saq_cron");
  });

  itOnPostgres("is created once when ten processes start at once", async () => {
    await openQueue(database, { note: () => {} }).connect();
    await database.query("drop table if exists saq_cron");
    const fleet = Array.from({ length: 10 }, () => open());
    await Promise.all(fleet.map(({ queue }) => queue.broker.schedules.list()));
    await Promise.all(fleet.map(({ queue, name }) => queue.schedules.pause(name)));
    expect(await database.query("select 1 from saq_cron where paused")).toHaveLength(10);
  });
});

describe("the JSON API", () => {
  const serve = (queue: Queue) =>
    supertest(
      express().use("/saq", createWebRouter({ queues: [queue], path: "/saq", logger: silentLogger })),
    );
  const csrf = ["X-SAQ-CSRF", "1"] as const;

  it("lists, runs, pauses and resumes schedules", async () => {
    const { queue: typed, name } = open();
    const queue = typed as unknown as Queue;
    const path = `/saq/api/queues/${queue.name}/schedules`;
    const app = serve(queue);
    const listed = await app.get(path);
    expect([listed.status, listed.body]).toEqual([200, { schedules: await queue.schedules.list() }]);
    const ran = await app.post(`${path}/${name}/run`).set(...csrf);
    expect(ran.status).toBe(202);
    expect((await queue.job(ran.body.job_id))?.function).toBe("note");
    expect((await app.post(`${path}/${name}/pause`).set(...csrf)).status).toBe(202);
    expect(await queue.schedules.list()).toMatchObject([{ paused: true }]);
    expect((await app.post(`${path}/${name}/resume`).set(...csrf)).status).toBe(202);
    expect(await queue.schedules.list()).toMatchObject([{ paused: false }]);
  });

  it("D-82: changes nothing without the CSRF header, and returns 404 for unknown names", async () => {
    const { queue: typed, name } = open();
    const queue = typed as unknown as Queue;
    const path = `/saq/api/queues/${queue.name}/schedules`;
    const app = serve(queue);
    for (const act of ["run", "pause", "resume"]) {
      expect((await app.post(`${path}/${name}/${act}`)).status).toBe(403);
      const answer = await app.post(`${path}/none/${act}`).set(...csrf);
      expect([answer.status, answer.body.status_code]).toEqual([404, 404]);
    }
    expect((await app.get("/saq/api/queues/none/schedules")).status).toBe(404);
    expect(await queue.list()).toEqual([]);
  });
});
