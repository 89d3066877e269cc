/** Changes by filter on PostgreSQL: how many statements, rows that others hold, long walks and large documents. */
import { beforeAll, describe, expect, it } from "@jest/globals";
import pg from "pg";
import type { ChangeResult } from "../../../templates/backend/saq/index.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { insertRow, openQueue, rowOf, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (): Hello => openQueue(database, tasks);

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

/** Inserts jobs with SQL, under the keys `prefix:00001` and so on. */
const fill = (queue: string, count: number, status = "failed", prefix = queue) =>
  database.query(
    `insert into saq_jobs (key, queue, status, job)
     select k.key, $1, $2, convert_to(json_build_object('function', 'hello', 'queue', $1::text, 'key', k.key,
       'queued', 1, 'completed', 2, 'error', 'boom', 'status', $2::text)::text, 'UTF8')
     from (select $4::text || ':' || lpad(n::text, 5, '0') as key from generate_series(1, $3::int) n) k`,
    [queue, status, count, prefix],
  );

/** Returns the statements that this process sends while `work` runs, without those that begin and end transactions. */
async function statementsDuring(work: () => Promise<unknown>): Promise<string[]> {
  const sent: string[] = [];
  const { query } = pg.Client.prototype;
  pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
    const [first] = args as [string | { text: string; name?: string }];
    if (typeof first === "string") sent.push(first);
    else sent.push(first.name ?? first.text);
    return Reflect.apply(query, this, args);
  } as typeof query;
  try {
    await work();
  } finally {
    pg.Client.prototype.query = query;
  }
  return sent;
}

describe("a change by filter", () => {
  it("sends two statements for each page of 500 jobs, and no transaction of more than one", async () => {
    const queue = open();
    await fill(queue.name, 1_200);
    await queue.connect();
    let result: ChangeResult | undefined;
    const sent = await statementsDuring(async () => {
      result = await queue.changeMany({ error: "boom" }, "retry");
    });
    expect(result).toMatchObject({ matched: 1_200, changed: 1_200, cursor: null });
    expect(sent.map((name) => name.replace(/_[0-9a-f]{8}$/, ""))).toEqual([
      "saq_failedPage",
      "saq_changePage",
      "saq_failedPage",
      "saq_changePage",
      "saq_failedPage",
      "saq_changePage",
    ]);
  });

  it("skips rows that another transaction holds, counts them, and does not wait for them", async () => {
    const queue = open();
    await fill(queue.name, 20);
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where queue = $1 and right(key, 1) in ('3', '7') for update", [
      queue.name,
    ]);
    // A transaction that has changed the row, but has not committed.
    await other.query("update saq_jobs set priority = 1 where key = $1", [`${queue.name}:00010`]);
    const began = performance.now();
    expect(await queue.changeMany({}, "retry")).toEqual({
      matched: 20,
      changed: 15,
      skipped: { locked: 5 },
      cursor: null,
    });
    expect(performance.now() - began).toBeLessThan(4_000);
    expect((await rowOf(database, `${queue.name}:00003`))?.status).toBe("failed");
    await other.query("commit");
    expect(await queue.changeMany({}, "retry")).toMatchObject({ matched: 5, changed: 5, skipped: {} });
    expect((await rowOf(database, `${queue.name}:00010`))?.priority).toBe(1);
  });

  it("walks the table in pages of 5,000 rows for statuses without an index, past other queues", async () => {
    const queue = open();
    await fill(`${queue.name}-other`, 12_000, "complete");
    await fill(queue.name, 1, "queued", "0");
    await fill(queue.name, 1, "queued", "zzz");
    const pages: ChangeResult[] = [];
    const result = await queue.changeMany({}, "abort", { onProgress: (page) => pages.push(page) });
    expect(result).toMatchObject({ matched: 2, changed: 2, cursor: null });
    expect(pages.length).toBeGreaterThanOrEqual(3);
    const listed = await queue.list({ task: "hello", statuses: ["aborted", "complete"] });
    expect(listed.map(({ key }) => key)).toEqual(["zzz:00001", "0:00001"]);
    await database.query("delete from saq_jobs where queue like $1 || '%'", [queue.name]);
  });

  it("reads documents of more than 8 MiB in several pages", async () => {
    const queue = open();
    const kwargs = { text: "x".repeat(5 * 1024 * 1024) };
    for (const n of [1, 2, 3]) {
      const key = `large:${n}`;
      const members = { function: "hello", kwargs, queue: queue.name, key, queued: 1, error: "boom" };
      await insertRow(database, {
        key,
        queue: queue.name,
        status: "failed",
        document: JSON.stringify({ ...members, status: "failed" }),
      });
    }
    const pages: number[] = [];
    const result = await queue.changeMany({ error: "boom" }, "retry", {
      onProgress: ({ changed }) => pages.push(changed),
    });
    expect(result).toMatchObject({ matched: 3, changed: 3 });
    expect(pages.slice(0, 3)).toEqual([1, 2, 3]);
    expect(JSON.parse((await rowOf(database, "large:2"))?.text ?? "")).toMatchObject({
      kwargs,
      status: "queued",
    });
  });

  it("searches at most 32 MiB of documents in one statement", async () => {
    const queue = open();
    await database.query(
      `insert into saq_jobs (key, queue, status, job)
       select k.key, $1, 'failed', convert_to(json_build_object('function', 'hello', 'queue', $1::text, 'key', k.key,
         'kwargs', json_build_object('text', repeat('x', 1048576)), 'queued', 1, 'completed', 2, 'error', 'boom',
         'status', 'failed')::text, 'UTF8')
       from (select 'wide:' || lpad(n::text, 2, '0') as key from generate_series(1, 40) n) k`,
      [queue.name],
    );
    const pages: ChangeResult[] = [];
    const none = await queue.changeMany({ error: "other" }, "retry", { onProgress: (page) => pages.push(page) });
    expect(none).toMatchObject({ matched: 0, cursor: null });
    expect(pages).toHaveLength(2);
    const some = await queue.changeMany({ error: "boom", keyPrefix: "wide:4" }, "delete");
    expect(some).toMatchObject({ matched: 1, changed: 1 });
    expect(await queue.changeMany({ error: "boom" }, "delete")).toMatchObject({ matched: 39, changed: 39 });
  });

  it("skips rows that hold no job, and keeps their bytes; a delete deletes them", async () => {
    const queue = open();
    const key = `poison:${queue.name}`;
    const invalid = Buffer.from([0x7b, 0xff, 0x7d]);
    await insertRow(database, { key, queue: queue.name, status: "failed", document: invalid });
    expect(await queue.changeMany({}, "retry")).toMatchObject({
      matched: 1,
      changed: 0,
      skipped: { unreadable: 1 },
    });
    const [row] = await database.query<{ job: Buffer }>("select job from saq_jobs where key = $1", [key]);
    expect(row?.job).toEqual(invalid);
    expect(await queue.changeMany({ task: "hello" }, "delete")).toMatchObject({ matched: 0 });
    expect(await queue.changeMany({}, "delete")).toMatchObject({ matched: 1, changed: 1 });
  });

  it("ends the wish of a job to run alone when it is retried, as a retry of one job does", async () => {
    const queue = open();
    const key = `lost:${queue.name}`;
    await fill(queue.name, 1, "failed", `lost:${queue.name}`);
    await database.query(
      `update saq_jobs set key = $1, group_key = 'saq:alone',
         job = convert_to(replace(replace(convert_from(job, 'UTF8'), key, $1),
           '"queued"', '"meta" : {"lost": 4, "own": 1}, "queued"'), 'UTF8')
       where queue = $2`,
      [key, queue.name],
    );
    expect(await queue.changeMany({}, "retry")).toMatchObject({ changed: 1 });
    expect(await rowOf(database, key)).toMatchObject({ status: "queued", group_key: null });
    expect((await queue.job(key))?.meta).toEqual({ own: 1 });
  });

  it("walks the primary key for failed jobs on tables without our index, such as Python's", async () => {
    await database.query("alter index saq_jobs_failed_idx rename to other_idx");
    try {
      const queue = open();
      await fill(queue.name, 3);
      await queue.connect();
      const sent = await statementsDuring(async () => {
        expect(await queue.changeMany({}, "retry")).toMatchObject({ matched: 3, changed: 3, cursor: null });
      });
      expect(sent[0]).toMatch(/^saq_anyPage_/);
    } finally {
      await database.query("alter index other_idx rename to saq_jobs_failed_idx");
    }
  });
});
