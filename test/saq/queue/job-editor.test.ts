/** Aborting, retrying, deleting and starting by hand: which states allow it, and what the calls return. */
import { beforeAll, describe, expect, it } from "@jest/globals";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { populate } from "../support/every-state.js";
import { pythonComplaints } from "../support/golden-documents.js";
import { claim, insertRow, openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";
import { itOnPostgres, itWithPush } from "../support/test-broker.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (options: object = {}): Hello => openQueue(database, tasks, options);

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

describe("abort", () => {
  it("V-5.10: ends a waiting job at once and keeps its row for its ttl", async () => {
    const queue = open();
    const job = await queue.enqueue("hello", {}, { ttl: 60, scheduled: inSeconds(600) });
    expect(await job.abort("nope")).toBe("aborted");
    const row = await rowOf(database, job.key);
    // D-31: its key is free at once.
    expect(row).toMatchObject({ status: "aborted", scheduled: 0, expire_at: expect.any(Number) });
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
    expect(await job.refresh()).toMatchObject({
      status: "aborted",
      error: "nope",
      completed: expect.any(Number),
    });
    expect(await claim(queue)).toEqual([]);
  });

  it("V-5.11: marks a running job as aborting and keeps its other fields", async () => {
    const queue = open();
    const job = await queue.enqueue("hello");
    await claim(queue);
    expect(await job.abort("nope")).toBe("aborting");
    expect(await job.abort("again")).toBe("aborting");
    expect(await job.refresh()).toMatchObject({
      status: "aborting",
      error: "nope",
      attempts: 1,
      workerId: "worker-1",
    });
  });

  it.each(["complete", "failed", "aborted"])(
    "D-23: returns not_active for a job that is %s, and changes nothing",
    async (status) => {
      const queue = open();
      const keys = await populate(queue);
      const key = keys[status] ?? "";
      const before = await rowOf(database, key);
      expect(await queue.abort(key)).toBe("not_active");
      expect(await rowOf(database, key)).toEqual(before);
    },
  );

  it("D-27: returns null for a job that does not exist or belongs to another queue", async () => {
    const [queue, other] = [open(), open()];
    const job = await other.enqueue("hello");
    expect(await queue.abort("unknown")).toBeNull();
    expect(await queue.abort(job.key)).toBeNull();
    expect((await job.refresh()).status).toBe("queued");
  });

  it("J-16: deletes a waiting job with a negative ttl", async () => {
    const queue = open();
    const job = await queue.enqueue("hello", {}, { ttl: -1 });
    expect(await job.abort()).toBe("aborted");
    expect(await queue.job(job.key)).toBeNull();
  });

  it("D-22: either ends a job that is being claimed or marks it as aborting, and is never lost", async () => {
    const queue = open();
    for (let round = 0; round < 20; round++) {
      const job = await queue.enqueue("hello");
      const [answer, claimed] = await Promise.all([job.abort(), claim(queue)]);
      const { status } = await job.refresh();
      expect([answer, claimed.length, status]).toEqual(
        claimed.length === 0 ? ["aborted", 0, "aborted"] : ["aborting", 1, "aborting"],
      );
    }
  });
});

describe("a retry by hand", () => {
  it.each(["complete", "failed", "aborted"])(
    "D-26, T-9, T-85: queues a job that is %s again and resets its attempts",
    async (status) => {
      const queue = open();
      const keys = await populate(queue);
      const job = await queue.job(keys[status] ?? "");
      expect(await job?.retry({ error: "retried from ui" })).toBe("queued");
      const row = await rowOf(database, keys[status] ?? "");
      expect(row).toMatchObject({ status: "queued", expire_at: null });
      expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
      expect(await job?.refresh()).toMatchObject({
        status: "queued",
        attempts: 0,
        error: "retried from ui",
        result: null,
      });
    },
  );

  it.each(["queued", "scheduled", "active", "aborting"])(
    "D-26: returns not_finished for a job that is %s",
    async (state) => {
      const queue = open();
      const keys = await populate(queue);
      const before = await rowOf(database, keys[state] ?? "");
      expect(await queue.retry(keys[state] ?? "")).toBe("not_finished");
      expect(await rowOf(database, keys[state] ?? "")).toEqual(before);
    },
  );

  it("D-27: returns null for a job that does not exist", async () => {
    expect(await open().retry("unknown")).toBeNull();
  });

  itWithPush("W-12: a waiting worker runs the job at once", async () => {
    const queue = open({ timers: { schedule: 60 } });
    const keys = await populate(queue);
    const worker = openQueue(database, tasks, { name: queue.name, timers: { schedule: 60 } });
    const { ended } = await startWorker(worker);
    await ended(keys.queued ?? "");
    expect(await queue.retry(keys.failed ?? "")).toBe("queued");
    expect(await ended(keys.failed ?? "")).toBe("Finished hello");
  });

  itOnPostgres("P-21: wakes waiting workers", async () => {
    const queue = open();
    const keys = await populate(queue);
    const listener = await database.connect();
    const heard: string[] = [];
    listener.on("notification", ({ payload }) => heard.push(String(payload)));
    await listener.query(`listen "saq:${queue.name}"`);
    await queue.retry(keys.failed ?? "");
    await until(async () => heard.length > 0);
    expect(heard).toEqual(["saq:enqueue"]);
  });
});

describe("delete", () => {
  it.each(["complete", "failed", "aborted", "queued", "scheduled"])(
    "deletes a job that is %s",
    async (state) => {
      const queue = open();
      const keys = await populate(queue);
      const key = keys[state] ?? "";
      const before = await queue.counts();
      expect(await queue.delete(key)).toBe("deleted");
      expect(await queue.job(key)).toBeNull();
      expect(await queue.counts()).toEqual({ ...before, [state]: 0 });
      expect(await queue.delete(key)).toBeNull();
      // Its key is free.
      expect(await queue.enqueue("hello", {}, { key })).not.toBeNull();
    },
  );

  it.each(["active", "aborting"])(
    "returns running for a job that is %s, and changes nothing",
    async (state) => {
      const queue = open();
      const keys = await populate(queue);
      const before = await rowOf(database, keys[state] ?? "");
      expect(await (await queue.job(keys[state] ?? ""))?.delete()).toBe("running");
      expect(await rowOf(database, keys[state] ?? "")).toEqual(before);
    },
  );

  it("D-27: returns null for a job that does not exist or belongs to another queue", async () => {
    const [queue, other] = [open(), open()];
    const job = await other.enqueue("hello");
    expect(await queue.delete("unknown")).toBeNull();
    expect(await queue.delete(job.key)).toBeNull();
    expect((await job.refresh()).status).toBe("queued");
  });

  it("D-3: deletes a job whose document cannot be read", async () => {
    const queue = open();
    const key = `poison ${queue.name}`;
    await insertRow(database, { key, queue: queue.name, document: "{", status: "queued" });
    expect(await queue.delete(key)).toBe("deleted");
    expect(await rowOf(database, key)).toBeUndefined();
    expect(await claim(queue)).toEqual([]);
  });

  it("ends the wait of those who wait for the job", async () => {
    const queue = open();
    const job = await queue.enqueue("hello");
    const end = expect(job.refresh(60)).rejects.toMatchObject({ code: "job_gone" });
    expect(await job.delete()).toBe("deleted");
    await end;
  });
});

describe("runNow", () => {
  it("makes a job due that waits for its time; the key can be enqueued again when it has ended", async () => {
    const queue = open();
    const key = `later ${queue.name}`;
    const job = await queue.enqueue("hello", {}, { scheduled: inSeconds(3_600), key });
    expect(await claim(queue)).toEqual([]);
    expect(await job?.runNow()).toBe("due");
    expect(await queue.runNow(key)).toBe("already_due");
    const row = await rowOf(database, key);
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
    const { ended } = await startWorker(openQueue(database, tasks, { name: queue.name }));
    await ended(key);
    await until(async () => (await queue.enqueue("hello", {}, { key, scheduled: inSeconds(600) })) !== null);
  });

  itWithPush("a waiting worker runs the job at once", async () => {
    const queue = open();
    const job = await queue.enqueue("hello", {}, { scheduled: inSeconds(3_600) });
    const worker = openQueue(database, tasks, { name: queue.name, timers: { schedule: 60 } });
    const { ended } = await startWorker(worker);
    expect(await job.runNow()).toBe("due");
    expect(await ended(job.key)).toBe("Finished hello");
  });

  it.each(["complete", "failed", "aborted", "active", "aborting"])(
    "returns not_waiting for a job that is %s, and changes nothing",
    async (state) => {
      const queue = open();
      const keys = await populate(queue);
      const before = await rowOf(database, keys[state] ?? "");
      expect(await queue.runNow(keys[state] ?? "")).toBe("not_waiting");
      expect(await rowOf(database, keys[state] ?? "")).toEqual(before);
    },
  );

  it("leaves a tick of a recurring task, a job that is not readable, and says so", async () => {
    const queue = open();
    const tick = `cron:${queue.name}`;
    await queue.enqueue("hello", {}, { scheduled: inSeconds(3_600), key: tick });
    expect(await queue.runNow(tick)).toBe("schedule");
    const key = `poison ${queue.name}`;
    await insertRow(database, { key, queue: queue.name, document: "{", status: "queued", scheduled: 4e9 });
    expect(await queue.runNow(key)).toBe("unreadable");
    expect(await queue.runNow("unknown")).toBeNull();
  });
});
