import { beforeAll, describe, expect, it } from "@jest/globals";
import { ensureSchema } from "../../templates/backend/saq/postgres/schema.js";
import { buildStatements } from "../../templates/backend/saq/postgres/statements.js";
import type { Queue } from "../../templates/backend/saq/queue.js";
import { goldenDocuments, pythonComplaints } from "./golden-documents.js";
import { claim, insertRow, openQueue, rowOf, settlement, useDatabase } from "./support.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (options: object = {}): Hello => openQueue(database, tasks, options);

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

const nowSeconds = async () =>
  Number((await database.query<{ now: string }>("select floor(extract(epoch from now())) as now"))[0]?.now);

const enqueueAll = (queue: Hello, count: number, options: (n: number) => object = () => ({})) =>
  Promise.all(Array.from({ length: count }, (_, n) => queue.enqueue("hello", { n }, options(n))));

const keysOf = (jobs: readonly { key: string }[]) => jobs.map(({ key }) => key);

describe("a claimed job", () => {
  it("D-0b, V-5.4, V-5.5: is active and started in the same step, in row and document", async () => {
    const queue = open();
    const job = await queue.enqueue("hello", { a: "é" }, { retries: 2, meta: { step: 2 } });
    const before = Date.now();
    const [claimed] = await claim(queue, { workerId: "worker-1" });
    const row = await rowOf(database, job.key);
    expect(row).toMatchObject({ status: "active", scheduled: 0, expire_at: null, lock_key: claimed?.token });
    expect(row?.text).toBe(claimed?.document);
    const document = JSON.parse(row?.text ?? "");
    expect(document).toEqual({
      function: "hello",
      kwargs: { a: "é" },
      queue: queue.name,
      key: job.key,
      retries: 2,
      attempts: 1,
      queued: job.queued,
      started: expect.any(Number),
      touched: document.started,
      status: "active",
      meta: { step: 2 },
      worker_id: "worker-1",
    });
    expect(document.started).toBeGreaterThan(before - 1_000);
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
  });

  it("P-10: has its document's due time in its column, 0 when it has none", async () => {
    const queue = open();
    const scheduled = (await nowSeconds()) - 5;
    const [past, none] = [await queue.enqueue("hello", {}, { scheduled }), await queue.enqueue("hello")];
    const claimed = await claim(queue);
    expect(claimed.map(({ key, due }) => [key, due])).toEqual([
      [past.key, scheduled],
      [none.key, expect.any(Number)],
    ]);
    expect((await rowOf(database, past.key))?.scheduled).toBe(scheduled);
    expect((await rowOf(database, none.key))?.scheduled).toBe(0);
  });

  it.each(goldenDocuments.filter(({ status }) => status === "queued"))(
    "$clause: a row that Python wrote is claimed, and Python can load what is written",
    async ({ document }) => {
      const queue = open();
      const { key } = JSON.parse(document) as { key: string };
      await database.query("delete from saq_jobs where key = $1", [key]);
      const text = document.replace('"queue": "default"', `"queue": "${queue.name}"`);
      await insertRow(database, { key, queue: queue.name, document: text });
      const [claimed] = await claim(queue);
      const was = JSON.parse(text) as { attempts?: number };
      expect(JSON.parse(claimed?.document ?? "")).toEqual({
        ...was,
        status: "active",
        attempts: (was.attempts ?? 0) + 1,
        started: expect.any(Number),
        touched: expect.any(Number),
        worker_id: "worker-1",
      });
      expect(pythonComplaints(claimed?.document ?? "", queue.name)).toEqual([]);
    },
  );
});

describe("what is claimed, and in which order", () => {
  it("D-6: first in, first out within one second", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 50);
    await database.query("update saq_jobs set scheduled = 1000 where queue = $1", [queue.name]);
    const first = await claim(queue, { limit: 20 });
    const rest = await claim(queue, { limit: 100 });
    expect(keysOf([...first, ...rest])).toEqual(keysOf(jobs));
  });

  it("P-15: lower priority numbers first, then the earlier due time", async () => {
    const queue = open();
    const now = await nowSeconds();
    const jobs = await enqueueAll(queue, 6, (n) => ({ priority: n % 3, scheduled: now - n }));
    const claimed = await claim(queue);
    expect(keysOf(claimed)).toEqual([3, 0, 4, 1, 5, 2].map((n) => jobs[n]?.key));
  });

  it("P-14: only priorities within the worker's bounds, negative ones are parked", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 5, (n) => ({ priority: [-1, 0, 5, 6, 32767][n] }));
    expect(keysOf(await claim(queue, { priorities: [0, 5] }))).toEqual([jobs[1]?.key, jobs[2]?.key]);
    expect(keysOf(await claim(queue))).toEqual([jobs[3]?.key, jobs[4]?.key]);
    expect(keysOf(await claim(queue, { priorities: [-32768, -1] }))).toEqual([jobs[0]?.key]);
  });

  it("P-14: no job before its time, and 500 future ones of a higher priority do not stand in the way", async () => {
    const queue = open();
    const scheduled = (await nowSeconds()) + 600;
    await enqueueAll(queue, 500, (n) => ({ scheduled, priority: n % 3 }));
    const due = await queue.enqueue("hello", {}, { priority: 3 });
    expect(keysOf(await claim(queue, { limit: 50 }))).toEqual([due.key]);
    expect(await claim(queue, { limit: 50 })).toEqual([]);
  });

  it("V-1: no job of another queue", async () => {
    const [one, two] = [open(), open()];
    await one.enqueue("hello");
    expect(await claim(two)).toEqual([]);
    expect(await claim(one)).toHaveLength(1);
  });

  it("5.1: every job once, whoever else claims at the same moment", async () => {
    const queue = open();
    const others = [1, 2, 3].map(() => open({ name: queue.name }));
    const jobs = await enqueueAll(queue, 400);
    const batches = await Promise.all(
      Array.from({ length: 40 }, (_, n) => claim([queue, ...others][n % 4] ?? queue, { limit: 10 })),
    );
    const taken = keysOf(batches.flat());
    const rest = keysOf(await claim(queue, { limit: 400 }));
    expect([...taken, ...rest].toSorted()).toEqual(keysOf(jobs).toSorted());
  });

  it("P-15: a row that somebody's transaction holds is passed over, not waited for", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 3);
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [jobs[0]?.key]);
    expect(keysOf(await claim(queue))).toEqual([jobs[1]?.key, jobs[2]?.key]);
    await other.query("rollback");
    expect(keysOf(await claim(queue))).toEqual([jobs[0]?.key]);
  });
});

describe("groups", () => {
  const grouped = (queue: Hello, limit = 10) => claim(queue, { grouped: true, limit });

  it("D-1: ungrouped jobs are claimed while a grouped one runs, and apart from them", async () => {
    const queue = open();
    const inGroup = await queue.enqueue("hello", {}, { groupKey: "g" });
    expect(keysOf(await claim(queue))).toEqual([]);
    expect(await queue.broker.hasGrouped()).toBe(true);
    expect(keysOf(await grouped(queue))).toEqual([inGroup.key]);
    expect(await queue.broker.hasGrouped()).toBe(false);
    const alone = await queue.enqueue("hello");
    expect(keysOf(await claim(queue))).toEqual([alone.key]);
  });

  it("D-2: one per group in a batch, in order, the next when the first has ended", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 6, (n) => ({ groupKey: `g${n % 2}` }));
    const first = await grouped(queue);
    expect(keysOf(first)).toEqual([jobs[0]?.key, jobs[1]?.key]);
    expect(await grouped(queue)).toEqual([]);
    if (first[0]) await queue.broker.settle(settlement(first[0], "complete"));
    expect(keysOf(await grouped(queue))).toEqual([jobs[2]?.key]);
  });

  it("D-2: two claimers at the same moment take one between them, again and again", async () => {
    const queue = open();
    const other = open({ name: queue.name });
    await Promise.all([queue.connect(), other.connect()]);
    for (let round = 0; round < 20; round++) {
      await enqueueAll(queue, 3, () => ({ groupKey: `round${round}` }));
      const taken = (
        await Promise.all([queue, other, queue, other].map((claimer) => grouped(claimer)))
      ).flat();
      expect(taken).toHaveLength(1);
    }
  });

  it("D-2: a job picked before another claim of its group was committed is looked at again", async () => {
    const queue = open();
    const [first, second] = await enqueueAll(queue, 2, (n) => ({ groupKey: "g", priority: n }));
    // A claimer that takes only the second job's priority, step by step.
    const slow = await database.connect();
    const { groupHeads, lockGroups, claimGroups } = buildStatements(await ensureSchema(slow));
    await slow.query("begin");
    const picked = await slow.query(groupHeads.text, [queue.name, 1, 1, "", 10]);
    expect(picked.rows.map(({ key }) => key)).toEqual([second?.key]);
    expect(keysOf(await claim(queue, { grouped: true, priorities: [0, 0] }))).toEqual([first?.key]);
    const locked = await slow.query(lockGroups.text, [queue.name, [second?.key], ["g"]]);
    expect(locked.rowCount).toBe(1);
    const claimed = await slow.query(claimGroups.text, [queue.name, [second?.key], 1, 1, 7, "{}"]);
    await slow.query("commit");
    expect(claimed.rowCount).toBe(0);
  });

  it("D-2: an aborting member still counts as running", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 2, () => ({ groupKey: "g" }));
    const [first] = await grouped(queue);
    expect(await queue.abort(jobs[0]?.key ?? "")).toBe("aborting");
    expect(await grouped(queue)).toEqual([]);
    if (first) expect(await queue.broker.settle(settlement(first, "complete"))).toBe("aborted");
    expect(keysOf(await grouped(queue))).toEqual([jobs[1]?.key]);
  });

  it("D-2: another queue's group of that name is another group", async () => {
    const [one, two] = [open(), open()];
    await one.enqueue("hello", {}, { groupKey: "g" });
    await two.enqueue("hello", {}, { groupKey: "g" });
    expect(await grouped(one)).toHaveLength(1);
    expect(await grouped(two)).toHaveLength(1);
  });

  it("P-16: future jobs and other priorities of a group wait, the due ones of it do not", async () => {
    const queue = open();
    const scheduled = (await nowSeconds()) + 600;
    await queue.enqueue("hello", {}, { groupKey: "g", scheduled });
    await queue.enqueue("hello", {}, { groupKey: "g", priority: -5 });
    const due = await queue.enqueue("hello", {}, { groupKey: "g", priority: 9 });
    expect(keysOf(await grouped(queue))).toEqual([due.key]);
  });

  it("a group may be called by an empty text", async () => {
    const queue = open();
    const job = await queue.enqueue("hello", {}, { groupKey: "" });
    expect(keysOf(await grouped(queue))).toEqual([job.key]);
  });

  it("5.1: more groups than one walk visits are reached by the next ones", async () => {
    const queue = open();
    await enqueueAll(queue, 2_500, (n) => ({ groupKey: `g${n}` }));
    const taken = new Set<string>();
    for (let walk = 0; walk < 6; walk++) for (const { key } of await grouped(queue, 1_000)) taken.add(key);
    expect(taken.size).toBe(2_500);
  });
});
