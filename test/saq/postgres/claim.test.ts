import { beforeAll, describe, expect, it } from "@jest/globals";
import { receiptOf } from "../../../templates/backend/saq/postgres/receipt.js";
import { ensureSchema } from "../../../templates/backend/saq/postgres/schema/schema.js";
import { buildStatements } from "../../../templates/backend/saq/postgres/sql/statements.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { documentIn, goldenDocuments, pythonComplaints } from "../support/golden-documents.js";
import { claim, insertRow, openQueue, rowOf, until, useDatabase } from "../support/scenario.js";

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

it("a claim locks only the rows that it takes, also over several priorities", async () => {
  const queue = open();
  await queue.enqueue("hello", {}, { priority: 0 });
  const second = await queue.enqueue("hello", {}, { priority: 1 });
  const client = await database.connect();
  const { claim } = buildStatements(await ensureSchema(client));
  await client.query("begin");
  const patch = JSON.stringify({ status: "active", worker_id: "worker-1" });
  expect((await client.query(claim.text, [queue.name, 0, 32_767, 1, 7, patch])).rows).toHaveLength(1);
  const free = "select key from saq_jobs where queue = $1 and status = 'queued' for update skip locked";
  expect(await database.query(free, [queue.name])).toEqual([{ key: second.key }]);
  await client.query("rollback");
});

describe("a claimed job", () => {
  it("D-0b, V-5.4, V-5.5: becomes active in the row and the document and gets its start time in one step", async () => {
    const queue = open();
    const job = await queue.enqueue("hello", { a: "é" }, { retries: 2, meta: { step: 2 } });
    const before = Date.now();
    const [claimed] = await claim(queue, { workerId: "worker-1" });
    const row = await rowOf(database, job.key);
    expect(row).toMatchObject({
      status: "active",
      scheduled: 0,
      expire_at: null,
      lock_key: claimed && receiptOf(claimed).token,
    });
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

  it("P-10: keeps the due time of its document in the scheduled column, or 0 when it has none", async () => {
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
    "$clause: a row that Python wrote is claimed, and Python can load the claimed document",
    async (golden) => {
      const queue = open();
      const { key } = golden;
      await database.query("delete from saq_jobs where key = $1", [key]);
      const text = documentIn(queue.name, golden);
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

describe("the jobs that a claim takes, and their order", () => {
  it("D-6, T-6: jobs of the same second are claimed in the order in which they were enqueued", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 50);
    await database.query("update saq_jobs set scheduled = 1000 where queue = $1", [queue.name]);
    const first = await claim(queue, { limit: 20 });
    const rest = await claim(queue, { limit: 100 });
    expect(keysOf([...first, ...rest])).toEqual(keysOf(jobs));
  });

  it("P-15: jobs with lower priority numbers come first, then jobs with earlier due times", async () => {
    const queue = open();
    const now = await nowSeconds();
    const jobs = await enqueueAll(queue, 6, (n) => ({ priority: n % 3, scheduled: now - n }));
    const claimed = await claim(queue);
    expect(keysOf(claimed)).toEqual([3, 0, 4, 1, 5, 2].map((n) => jobs[n]?.key));
  });

  it("P-14: a claim takes only priorities within the worker's bounds, and no negative ones by default", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 5, (n) => ({ priority: [-1, 0, 5, 6, 32767][n] }));
    expect(keysOf(await claim(queue, { priorities: [0, 5] }))).toEqual([jobs[1]?.key, jobs[2]?.key]);
    expect(keysOf(await claim(queue))).toEqual([jobs[3]?.key, jobs[4]?.key]);
    expect(keysOf(await claim(queue, { priorities: [-32768, -1] }))).toEqual([jobs[0]?.key]);
  });

  it("P-14: future jobs are not claimed, and 500 of them with higher priority do not block a due job", async () => {
    const queue = open();
    const scheduled = (await nowSeconds()) + 600;
    await enqueueAll(queue, 500, (n) => ({ scheduled, priority: n % 3 }));
    const due = await queue.enqueue("hello", {}, { priority: 3 });
    expect(keysOf(await claim(queue, { limit: 50 }))).toEqual([due.key]);
    expect(await claim(queue, { limit: 50 })).toEqual([]);
  });

  it("V-1: a claim takes no job of another queue", async () => {
    const [one, two] = [open(), open()];
    await one.enqueue("hello");
    expect(await claim(two)).toEqual([]);
    expect(await claim(one)).toHaveLength(1);
  });

  it("each job is claimed only once when many claims run at the same time", async () => {
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

  it("P-15: a claim skips a row that another transaction holds and does not wait for it", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 3);
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [jobs[0]?.key]);
    expect(keysOf(await claim(queue))).toEqual([jobs[1]?.key, jobs[2]?.key]);
    await other.query("rollback");
    expect(keysOf(await claim(queue))).toEqual([jobs[0]?.key]);
  });

  it("a row that changed after a claim began is neither taken nor returned by it, but by the next claim", async () => {
    const queue = open();
    const [moved, other] = await enqueueAll(queue, 2);
    const client = await database.connect();
    const { claim: statement } = buildStatements(await ensureSchema(client));
    const due = "order by j.scheduled, j.lock_key limit $4";
    expect(statement.text).toContain(due);
    // The statement has its snapshot when it begins to sleep, and looks for rows after that.
    const slow = statement.text.replace(due, `and (select pg_sleep(1)) is not null ${due}`);
    const claiming = client.query<{ key: string }>(slow, [queue.name, 0, 0, 10, 7, '{"worker_id":"w"}']);
    await until(async () => {
      const asleep = await database.query(
        "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()",
      );
      return asleep.length > 0;
    });
    await database.query("update saq_jobs set priority = priority where key = $1", [moved?.key]);
    expect(keysOf((await claiming).rows)).toEqual([other?.key]);
    expect(await rowOf(database, moved?.key ?? "")).toMatchObject({ status: "queued" });
    expect(keysOf(await claim(queue))).toEqual([moved?.key]);
  });
});
