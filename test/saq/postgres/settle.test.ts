import { beforeAll, describe, expect, it } from "@jest/globals";
import type { ClaimedJob } from "../../../templates/backend/saq/core/claim.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { openProxy } from "../support/cuttable-proxy.js";
import { pythonComplaints } from "../support/golden-documents.js";
import {
  claim,
  insertRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  type TestDatabase,
  until,
  useDatabase,
} from "../support/scenario.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (from: { url: string } = database, options: object = {}): Hello =>
  openQueue(from, tasks, options);

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

const nowSeconds = async () =>
  Number((await database.query<{ now: string }>("select floor(extract(epoch from now())) as now"))[0]?.now);

/** Enqueues one job and claims it. */
async function running(queue: Hello, options: object = {}, kwargs: object = {}): Promise<ClaimedJob> {
  const job = await queue.enqueue("hello", kwargs, options);
  const [claimed] = await claim(queue);
  if (claimed?.key !== job.key) throw new Error("the job was not claimed");
  return claimed;
}

const documentOf = async (from: TestDatabase, key: string) =>
  JSON.parse((await rowOf(from, key))?.text ?? "null") as Record<string, unknown> | null;

describe("the settlement of an attempt", () => {
  it("V-5.7, J-36: stores a completed job with its result and keeps it for its ttl", async () => {
    const queue = open();
    const job = await running(queue, { meta: { step: 2 } }, { a: 1 });
    const fields = { result: { x: 1 }, completed: 9, touched: 9, progress: 1, error: null };
    expect(await settle(queue, settlement(job, "complete", fields, { keep: 60 }))).toBe("applied");
    const row = await rowOf(database, job.key);
    expect(row).toMatchObject({ status: "complete", scheduled: 0 });
    expect(Math.abs(Number(row?.expire_at) - (await nowSeconds()) - 60)).toBeLessThanOrEqual(1);
    expect(JSON.parse(row?.text ?? "")).toEqual({
      ...JSON.parse(job.document),
      status: "complete",
      progress: 1,
      completed: 9,
      touched: 9,
      result: { x: 1 },
    });
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
  });

  it("J-16: keeps the row for ever with ttl 0, and deletes it with a negative ttl", async () => {
    const queue = open();
    const [kept, gone] = [await running(queue), await running(queue)];
    await Promise.all([
      settle(queue, settlement(kept, "complete", {}, { keep: null })),
      settle(queue, settlement(gone, "complete", {}, { keep: -1 })),
    ]);
    expect(await rowOf(database, kept.key)).toMatchObject({ status: "complete", expire_at: null });
    expect(await rowOf(database, gone.key)).toBeUndefined();
  });

  it("P-25: queues a job again for a retry, and no claim takes the job before it is due", async () => {
    const queue = open();
    const job = await running(queue, { retries: 3, retryDelay: 60 });
    const scheduled = (await nowSeconds()) + 60;
    const fields = { error: "boom", started: 0, scheduled };
    expect(await settle(queue, settlement(job, "queued", fields, { scheduled }))).toBe("applied");
    expect(await rowOf(database, job.key)).toMatchObject({ status: "queued", scheduled, expire_at: null });
    expect(await documentOf(database, job.key)).toMatchObject({ attempts: 1, error: "boom", scheduled });
    expect(await claim(queue)).toEqual([]);
    await database.query("update saq_jobs set scheduled = 1000 where key = $1", [job.key]);
    expect(JSON.parse((await claim(queue))[0]?.document ?? "{}")).toMatchObject({ attempts: 2 });
  });

  it("restores the attempt count, the due time and the position of a job that goes back to the queue", async () => {
    const queue = open();
    const jobs = await Promise.all([1, 2, 3].map((n) => queue.enqueue("hello", { n })));
    await database.query("update saq_jobs set scheduled = 1000 where queue = $1", [queue.name]);
    const before = await rowOf(database, jobs[0]?.key ?? "");
    const [first] = await claim(queue, { limit: 1 });
    if (!first) throw new Error("nothing claimed");
    const back = settlement(first, "queued", { started: 0, workerId: null }, { charge: -1 });
    expect(await settle(queue, back)).toBe("applied");
    const after = await rowOf(database, first.key);
    expect(after).toMatchObject({ status: "queued", scheduled: 1000, lock_key: before?.lock_key });
    expect(JSON.parse(after?.text ?? "")).not.toHaveProperty("attempts");
    expect((await claim(queue)).map(({ key }) => key)).toEqual(jobs.map(({ key }) => key));
  });

  it("D-64: stores a result with NUL, lone surrogates and emoji unchanged", async () => {
    const queue = open();
    const result = { nul: "\0", half: "\ud800", other: "\udc00x", emoji: "😀" };
    const job = await running(queue);
    expect(await settle(queue, settlement(job, "complete", { result }))).toBe("applied");
    expect((await queue.job(job.key))?.result).toEqual(result);
  });

  it("D-64: keeps NaN and big integers in a payload unchanged, and so does a heartbeat", async () => {
    const queue = open();
    const kwargs = '{"a": NaN, "big": 12345678901234567890}';
    await insertRow(database, {
      key: "nan",
      queue: queue.name,
      document: `{"function": "hello", "kwargs": ${kwargs}, "queue": "${queue.name}", "key": "nan"}`,
    });
    const [job] = await claim(queue);
    if (!job) throw new Error("nothing claimed");
    expect(await queue.broker.heartbeat([{ ...job, patch: '{"progress":0.5}', removed: [] }])).toEqual([
      true,
    ]);
    expect(await settle(queue, settlement(job, "queued", {}, { charge: -1 }))).toBe("applied");
    const [again] = await claim(queue);
    if (!again) throw new Error("nothing claimed");
    expect(await settle(queue, settlement(again, "complete", { result: 1 }))).toBe("applied");
    const { text = "" } = (await rowOf(database, "nan")) ?? {};
    expect(text).toContain(`"kwargs": ${kwargs},`);
    expect(text).toContain('"attempts": 1');
    expect(text).toContain('"progress": 0.5');
    expect((await queue.job("nan"))?.result).toBe(1);
  });

  it("stores 1,000 concurrent settlements, each with its own result", async () => {
    const queue = open();
    await queue.enqueueMany(
      Array.from({ length: 1_000 }, (_, n) => ({ task: "hello" as const, payload: { n } })),
    );
    const jobs = await claim(queue, { limit: 1_000 });
    const results = await Promise.all(
      jobs.map((job, n) => settle(queue, settlement(job, "complete", { result: n }))),
    );
    expect(new Set(results)).toEqual(new Set(["applied"]));
    const stored = await queue.jobs(jobs.map(({ key }) => key));
    expect(stored.map((job) => job?.result)).toEqual(jobs.map((_, n) => n));
  });
});

describe("ownership of a job", () => {
  it("D-20: a settlement with a stale claim returns lost and changes nothing", async () => {
    const queue = open();
    const stale = await running(queue, { retries: 3 });
    await database.query("update saq_jobs set status = 'queued', scheduled = 0 where key = $1", [stale.key]);
    const [present] = await claim(queue, { workerId: "worker-2" });
    const before = await rowOf(database, stale.key);
    for (const status of ["complete", "failed", "aborted", "queued"] as const) {
      expect(await settle(queue, settlement(stale, status, { result: "stale", error: "stale" }))).toBe(
        "lost",
      );
      expect(await settle(queue, settlement(stale, status, {}, { keep: -1 }))).toBe("lost");
    }
    expect(await queue.broker.heartbeat([{ ...stale, patch: '{"progress":0.9}', removed: [] }])).toEqual([
      false,
    ]);
    expect(await queue.broker.findInterrupted([stale])).toEqual([{ key: stale.key, reason: "lost" }]);
    expect(await rowOf(database, stale.key)).toEqual(before);
    if (present) expect(await settle(queue, settlement(present, "complete"))).toBe("applied");
  });

  it.each(["complete", "failed", "aborted"] as const)(
    "D-20: a settlement with a stale claim does not change a row that is %s",
    async (status) => {
      const queue = open();
      const stale = await running(queue);
      await database.query("update saq_jobs set status = $2, lock_key = 7 where key = $1", [
        stale.key,
        status,
      ]);
      const before = await rowOf(database, stale.key);
      expect(await settle(queue, settlement(stale, "complete", { result: "stale" }))).toBe("lost");
      expect(await rowOf(database, stale.key)).toEqual(before);
    },
  );

  it("D-20: only one of two concurrent settlements of a claim is applied, and the other returns lost", async () => {
    const queue = open();
    const job = await running(queue);
    const ends = [settlement(job, "failed", { error: "e", completed: 5 }), settlement(job, "complete")];
    expect(await Promise.all(ends.map((end) => settle(queue, end)))).toEqual(["applied", "lost"]);
    expect(await documentOf(database, job.key)).toMatchObject({ status: "failed", error: "e" });
  });

  it("D-27: a settlement of a job whose row was deleted returns gone", async () => {
    const queue = open();
    const job = await running(queue);
    await database.query("delete from saq_jobs where key = $1", [job.key]);
    expect(await settle(queue, settlement(job, "complete"))).toBe("gone");
    expect(await queue.broker.heartbeat([{ ...job, patch: "{}", removed: [] }])).toEqual([false]);
  });

  it.each(["complete", "failed", "queued"] as const)(
    "D-25: a job whose abort was requested becomes aborted, also when its settlement says %s",
    async (status) => {
      const queue = open();
      const job = await running(queue, { ttl: 60, retries: 5 });
      expect(await queue.abort(job.key, "nope")).toBe("aborting");
      expect(await queue.broker.findInterrupted([job])).toEqual([{ key: job.key, reason: "abort" }]);
      expect(await settle(queue, settlement(job, status, { result: "late", error: "late" }))).toBe("aborted");
      const row = await rowOf(database, job.key);
      expect(row?.status).toBe("aborted");
      expect(Math.abs(Number(row?.expire_at) - (await nowSeconds()) - 60)).toBeLessThanOrEqual(1);
      const document = JSON.parse(row?.text ?? "");
      expect(document).toMatchObject({
        status: "aborted",
        error: "nope",
        attempts: 1,
        completed: expect.any(Number),
      });
      expect(document).not.toHaveProperty("result");
    },
  );

  it("J-16: an aborted job with a negative ttl is deleted", async () => {
    const queue = open();
    const job = await running(queue, { ttl: -1 });
    await queue.abort(job.key);
    expect(await settle(queue, settlement(job, "complete", {}, { keep: -1 }))).toBe("aborted");
    expect(await rowOf(database, job.key)).toBeUndefined();
  });

  it("D-21: a heartbeat changes only the fields that it names", async () => {
    const queue = open();
    const job = await running(queue, { meta: { old: 1 } });
    const touch = { ...job, patch: '{"progress":0.5,"touched":5}', removed: ["meta"] };
    expect(await queue.broker.heartbeat([touch])).toEqual([true]);
    const document = JSON.parse(job.document);
    delete document.meta;
    expect(await documentOf(database, job.key)).toEqual({ ...document, progress: 0.5, touched: 5 });
    await queue.abort(job.key);
    expect(await queue.broker.heartbeat([touch])).toEqual([false]);
  });
});

describe("a row that another transaction holds", () => {
  it("does not delay the settlements of other rows, and is written when it is released", async () => {
    const queue = open();
    const [held, ...others] = [await running(queue), await running(queue), await running(queue)];
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [held?.key]);
    let isFree = false;
    const late =
      held &&
      settle(queue, settlement(held, "complete", { result: 1 })).finally(() => {
        isFree = true;
      });
    const settled = await Promise.all(others.map((job) => settle(queue, settlement(job, "complete"))));
    expect(settled).toEqual(["applied", "applied"]);
    // The held row delays neither the next flush nor a claim, although there are only two connections.
    const next = await running(queue);
    expect(await settle(queue, settlement(next, "complete"))).toBe("applied");
    expect(isFree).toBe(false);
    await other.query("rollback");
    expect(await late).toBe("applied");
    expect((await queue.job(held?.key ?? ""))?.result).toBe(1);
  });

  it("delays its own heartbeat, but not the heartbeats of other rows", async () => {
    const queue = open();
    const [held, free] = [await running(queue), await running(queue)];
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [held.key]);
    const late = queue.broker.heartbeat([{ ...held, patch: '{"progress":0.5}', removed: [] }]);
    expect(await queue.broker.heartbeat([{ ...free, patch: '{"progress":0.5}', removed: [] }])).toEqual([
      true,
    ]);
    await other.query("rollback");
    expect(await late).toEqual([true]);
  });
});

describe("many rows that another transaction holds for a moment", () => {
  it.each<[string, object]>([
    ["completions with a suffix", { unchanged: true }],
    ["completions without a suffix", {}],
  ])("are written together, not one by one: %s", async (_, rest) => {
    const queue = open();
    await queue.enqueueMany(Array.from({ length: 200 }, (_, i) => ({ task: "hello", payload: { i } })));
    const jobs = await claim(queue, { limit: 200 });
    await database.query(`
        create table writes (at timestamptz default clock_timestamp());
        create function count_write() returns trigger language plpgsql as
          $$ begin insert into writes default values; return null; end $$;
        create trigger count_write after update on saq_jobs for each statement execute function count_write();`);
    const holder = await database.connect();
    await holder.query("begin");
    await holder.query("select 1 from saq_jobs where key = any($1) for update", [
      jobs.slice(50).map(({ key }) => key),
    ]);
    const answers = Promise.all(
      jobs.map((job) => settle(queue, settlement(job, "complete", { completed: 9 }, rest))),
    );
    // The rows are held for as long as a claim of another worker takes.
    await holder.query("select pg_sleep(0.02)");
    await holder.query("commit");
    expect(await answers).toEqual(jobs.map(() => "applied"));
    const [written] = await database.query<{ count: number }>("select count(*)::int as count from writes");
    expect(written?.count).toBeLessThan(20);
    await database.query("drop table writes; drop function count_write cascade");
  });
});

describe("a settlement whose response is lost", () => {
  it.each(["complete", "failed"] as const)(
    "returns applied when the row has our token and the status %s",
    async (status) => {
      const proxy = await openProxy(database);
      const queue = open(proxy);
      const job = await running(queue);
      const swallowed = proxy.mute();
      const settled = settle(queue, settlement(job, status, { result: 1, completed: 5 }));
      await swallowed;
      await until(async () => (await rowOf(database, job.key))?.status === status);
      const before = await rowOf(database, job.key);
      proxy.cut();
      expect(await settled).toBe("applied");
      expect(await rowOf(database, job.key)).toEqual(before);
    },
  );

  it("returns applied when the row is missing and the settlement had to delete it", async () => {
    const proxy = await openProxy(database);
    const queue = open(proxy);
    const job = await running(queue, { ttl: -1 });
    const swallowed = proxy.mute();
    const settled = settle(queue, settlement(job, "complete", {}, { keep: -1 }));
    await swallowed;
    proxy.cut();
    expect(await settled).toBe("applied");
  });

  it("returns applied, not lost, when the row was already queued again for a retry", async () => {
    const proxy = await openProxy(database);
    const queue = open(proxy);
    const job = await running(queue, { retries: 2 });
    const swallowed = proxy.mute();
    const settled = settle(
      queue,
      settlement(job, "queued", { error: "boom" }, { scheduled: (await nowSeconds()) + 60 }),
    );
    await swallowed;
    proxy.cut();
    expect(await settled).toBe("applied");
    expect(await documentOf(database, job.key)).toMatchObject({
      status: "queued",
      error: "boom",
      attempts: 1,
    });
  });
});
