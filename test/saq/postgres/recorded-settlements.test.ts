/** Ends of jobs that are recorded already or delete their row: in batches, and never the row of another claim. */
import { beforeAll, describe, expect, it, jest } from "@jest/globals";
import pg from "pg";
import type { Settlement } from "../../../templates/backend/saq/broker.js";
import type { ClaimedJob } from "../../../templates/backend/saq/core/claim.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { openProxy } from "../support/cuttable-proxy.js";
import {
  claimedText,
  closeAfterTest,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (from: { url: string } = database): Hello => openQueue(from, tasks);

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

/** Enqueues `count` jobs and claims them. Returns the jobs as the claim returned them. */
async function running(queue: Hello, count: number): Promise<ClaimedJob[]> {
  await queue.enqueueMany(
    Array.from({ length: count }, (_, n) => ({ task: "hello" as const, payload: { n }, ttl: -1 })),
  );
  const request = { workerId: "worker-1", limit: count, grouped: false, priorities: queue.config.priorities };
  return (await queue.broker.claim(request)).jobs;
}

/** The settlement of a job whose row is to be deleted, as a worker writes it. */
const removal = (job: ClaimedJob): Settlement =>
  settlement(job, "complete", { result: 1 }, { keep: -1, unchanged: true });

const rows = async (queue: Hello) =>
  Number(
    (
      await database.query<{ count: string }>("select count(*) from saq_jobs where queue = $1", [queue.name])
    )[0]?.count,
  );

/** Counts the statements that mention the jobs table and that this process sends from now on. */
function countStatements() {
  let count = 0;
  const query = pg.Client.prototype.query;
  const spy = jest.spyOn(pg.Client.prototype, "query").mockImplementation(function (
    this: pg.Client,
    ...args: unknown[]
  ) {
    const [first] = args as [string | { text: string }];
    if ((typeof first === "string" ? first : first.text).includes("saq_jobs")) count++;
    return Reflect.apply(query, this, args) as never;
  });
  closeAfterTest({ close: async () => spy.mockRestore() });
  return {
    get count() {
      return count;
    },
  };
}

describe("a settlement that deletes its row", () => {
  it("J-16: a thousand settlements delete their rows in one statement", async () => {
    const queue = open();
    await queue.connect();
    const statements = countStatements();
    const jobs = await running(queue, 1_000);
    expect(jobs.every(({ firstStart }) => firstStart !== null)).toBe(true);
    const before = statements.count;
    const results = await Promise.all(jobs.map((job) => settle(queue, removal(job))));
    expect(new Set(results)).toEqual(new Set(["applied"]));
    expect(statements.count - before).toBe(1);
    expect(await rows(queue)).toBe(0);
  });

  it("D-20: keeps rows of another claim and of a Python worker, and ends an aborted job as aborted", async () => {
    const queue = open();
    const [claimed, python, aborted, own] = (await running(queue, 4)) as [
      ClaimedJob,
      ClaimedJob,
      ClaimedJob,
      ClaimedJob,
    ];
    await database.query("update saq_jobs set lock_key = lock_key + 1 where key = $1", [claimed.key]);
    // Python takes over this job: it keeps the token and writes its own worker into the document.
    const taken = claimedText(python).replace('"worker_id":"worker-1"', '"worker_id":"python"');
    await database.query("update saq_jobs set job = $2 where key = $1", [python.key, Buffer.from(taken)]);
    expect(await queue.abort(aborted.key, "stop")).toBe("aborting");
    const before = await Promise.all([claimed, python].map(({ key }) => rowOf(database, key)));

    const results = await Promise.all(
      [claimed, python, aborted, own].map((job) => settle(queue, removal(job))),
    );
    expect(results).toEqual(["lost", "lost", "aborted", "applied"]);
    expect(await Promise.all([claimed, python].map(({ key }) => rowOf(database, key)))).toEqual(before);
    expect(await rows(queue)).toBe(2);
  });

  it("a row that another transaction holds does not delay the others, and is deleted when it is released", async () => {
    const queue = open();
    const [held, ...others] = (await running(queue, 3)) as [ClaimedJob, ...ClaimedJob[]];
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [held.key]);
    const late = settle(queue, removal(held));
    expect(await Promise.all(others.map((job) => settle(queue, removal(job))))).toEqual([
      "applied",
      "applied",
    ]);
    await other.query("rollback");
    expect(await late).toBe("applied");
    expect(await rows(queue)).toBe(0);
  });

  it("many settlements whose response was lost are checked in few statements and count as applied", async () => {
    const proxy = await openProxy(database);
    const queue = open(proxy);
    const jobs = await running(queue, 300);
    const statements = countStatements();
    const swallowed = proxy.mute();
    const settled = Promise.all(jobs.map((job) => settle(queue, removal(job))));
    await swallowed;
    await until(async () => (await rows(queue)) === 0);
    proxy.cut();
    expect(new Set(await settled)).toEqual(new Set(["applied"]));
    expect(statements.count).toBeLessThan(20);
  });

  it("notifies the waiting caller although the row is deleted", async () => {
    const queue = open();
    const [job] = (await running(queue, 1)) as [ClaimedJob];
    let told: (key: string) => void = () => {};
    const end = new Promise<string>((resolve) => {
      told = resolve;
    });
    const stop = await queue.broker.onJobEvents((event) => event && told(`${event.status} ${event.key}`));
    expect(await settle(queue, { ...removal(job), awaited: true })).toBe("applied");
    expect(await end).toBe(`complete ${job.key}`);
    await stop();
    expect(await rows(queue)).toBe(0);
  });
});

describe("settlements that keep their rows, of jobs whose rows were deleted", () => {
  it("D-27: many of them find in few statements that the rows are gone", async () => {
    const queue = open();
    const jobs = await running(queue, 100);
    await database.query("delete from saq_jobs where queue = $1", [queue.name]);
    const statements = countStatements();
    const ends = jobs.map((job) => settlement(job, "complete", { result: 1 }, { unchanged: true }));
    const results = await Promise.all(ends.map((end) => settle(queue, end)));
    expect(new Set(results)).toEqual(new Set(["gone"]));
    expect(statements.count).toBeLessThan(20);
  });
});

describe("jobs that tasks finish in their own transactions", () => {
  it("are confirmed in batches, and those whose transaction was rolled back are settled in batches", async () => {
    const pool = closeAfterTest({
      pool: new pg.Pool({ connectionString: database.url, max: 4 }),
      close: async () => {},
    }).pool;
    closeAfterTest({ close: () => pool.end() });
    const count = 300;
    let left = count;
    let all: () => void = () => {};
    const everyOne = new Promise<void>((resolve) => {
      all = resolve;
    });
    const own = async (ctx: Context, { rollback }: { rollback: boolean }) => {
      const client = await pool.connect();
      try {
        await client.query("begin");
        await ctx.finish("by its transaction", { client });
        await client.query(rollback ? "rollback" : "commit");
      } finally {
        client.release();
      }
      if (--left === 0) all();
      await everyOne;
      return "by its return";
    };
    const queue = openQueue(database, { own }, { concurrency: count });
    const jobs = await queue.enqueueMany(
      Array.from({ length: count }, (_, n) => ({ task: "own" as const, payload: { rollback: n % 3 === 0 } })),
    );
    const worker = await startWorker(queue);
    await everyOne;
    const statements = countStatements();
    await Promise.all(jobs.map((job) => worker.ended(job?.key ?? "")));
    expect(statements.count).toBeLessThan(60);
    const stored = await queue.jobs(jobs.map((job) => job?.key ?? ""));
    expect(stored.map((job) => job?.result)).toEqual(
      jobs.map((_, n) => (n % 3 === 0 ? "by its return" : "by its transaction")),
    );
    expect(worker.worker.stats).toEqual({ complete: count, failed: 0, retried: 0, aborted: 0 });
  });
});

it("a stop while the database is unreachable logs in one line which settlements it could not record", async () => {
  const proxy = await openProxy(database);
  let left = 50;
  let started: () => void = () => {};
  const allStarted = new Promise<void>((resolve) => {
    started = resolve;
  });
  let finish: () => void = () => {};
  const end = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const wait = async () => {
    if (--left === 0) started();
    await end;
  };
  const queue = openQueue(proxy, { wait }, { concurrency: 50 });
  const { worker, log } = await startWorker(queue);
  await queue.enqueueMany(Array.from({ length: 50 }, () => ({ task: "wait" as const })));
  await allStarted;
  proxy.refuse();
  finish();
  await until(async () => worker.runningKeys.length === 0);
  await Promise.all([worker.stop({ grace: 0 }), queue.close()]);
  const line = await log.saw(({ message }) => message.startsWith("could not record"));
  expect(line.fields).toMatchObject({ count: 50, jobs: expect.any(Array) });
  expect(log.lines.filter(({ message }) => message.startsWith("could not record"))).toHaveLength(1);
}, 600_000);
