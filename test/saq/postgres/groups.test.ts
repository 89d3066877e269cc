/** Groups: how many jobs of a group run at a time, in which order, and what a big group or many groups cost. */
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import pg from "pg";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import { clientConfig } from "../../../templates/backend/saq/postgres/connection/client-settings.js";
import { ensureSchema } from "../../../templates/backend/saq/postgres/schema/schema.js";
import { buildStatements } from "../../../templates/backend/saq/postgres/sql/statements.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase } from "../support/processes/database.js";
import { openQueue as openForProcesses } from "../support/processes/enqueuer.js";
import { claim, openQueue, settle, settlement, startWorker, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (options: object = {}): Hello => openQueue(database, tasks, options);

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});
afterAll(endAllWorkers);

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const nowSeconds = async () =>
  Number((await database.query<{ now: string }>("select floor(extract(epoch from now())) as now"))[0]?.now);

const enqueueAll = (queue: Hello, count: number, options: (n: number) => object = () => ({})) =>
  Promise.all(Array.from({ length: count }, (_, n) => queue.enqueue("hello", { n }, options(n))));

/** Inserts many rows with one statement, as other programs do. They are due 1,000 s ago unless `due` says otherwise. */
const fill = (queue: Hello, count: number, { group = "'g'", priority = "0", due = "$3 - 1000" } = {}) =>
  nowSeconds().then((now) =>
    database.query(
      `insert into saq_jobs (key, job, queue, status, priority, group_key, scheduled)
       select 'fill ' || $1 || gen_random_uuid(), convert_to('{}', 'UTF8'), $1, 'queued', ${priority}, ${group}, ${due}
       from generate_series(1, $2::int) n where $3::bigint > 0`,
      [queue.name, count, now],
    ),
  );

const keysOf = (jobs: readonly { key: string }[]) => jobs.map(({ key }) => key);

const grouped = (queue: Hello, limit = 10) => claim(queue, { grouped: true, limit });

it("D-1: ungrouped jobs are claimed separately from grouped ones, also while a grouped one runs", async () => {
  const queue = open();
  const inGroup = await queue.enqueue("hello", {}, { groupKey: "g" });
  expect(keysOf(await claim(queue))).toEqual([]);
  expect(await queue.broker.hasGrouped()).toBe(true);
  expect(keysOf(await grouped(queue))).toEqual([inGroup.key]);
  expect(await queue.broker.hasGrouped()).toBe(false);
  const alone = await queue.enqueue("hello");
  expect(keysOf(await claim(queue))).toEqual([alone.key]);
});

it("D-2: a batch takes one job per group, in order; the next one is claimed when the first has ended", async () => {
  const queue = open();
  const jobs = await enqueueAll(queue, 6, (n) => ({ groupKey: `g${n % 2}` }));
  const first = await grouped(queue);
  expect(keysOf(first)).toEqual([jobs[0]?.key, jobs[1]?.key]);
  expect(await grouped(queue)).toEqual([]);
  if (first[0]) await settle(queue, settlement(first[0], "complete"));
  expect(keysOf(await grouped(queue))).toEqual([jobs[2]?.key]);
});

it("D-2: two claimers that claim at the same time take only one job of a group, in each of 20 rounds", async () => {
  const queue = open();
  const other = open({ name: queue.name });
  await Promise.all([queue.connect(), other.connect()]);
  for (let round = 0; round < 20; round++) {
    await enqueueAll(queue, 3, () => ({ groupKey: `round${round}` }));
    const taken = (await Promise.all([queue, other, queue, other].map((claimer) => grouped(claimer)))).flat();
    expect(taken).toHaveLength(1);
  }
});

it("D-2: a claim takes no job if another claim of the same group was committed after the job was picked", async () => {
  const queue = open();
  const [first, second] = await enqueueAll(queue, 2, (n) => ({ groupKey: "g", priority: n }));
  // A claimer of only the second job's priority; its statements run one by one.
  const slow = await database.connect();
  const { groupHeads, lockGroups, claimGroups } = buildStatements(await ensureSchema(slow));
  await slow.query("begin");
  const picked = await slow.query(groupHeads.text, [queue.name, 1, 1, "", 10, 100, 1]);
  expect(picked.rows.map(({ key }) => key)).toEqual([second?.key]);
  expect(keysOf(await claim(queue, { grouped: true, priorities: [0, 0] }))).toEqual([first?.key]);
  const locked = await slow.query(lockGroups.text, [queue.name, [second?.key], ["g"], 10]);
  expect(locked.rowCount).toBe(1);
  const claimed = await slow.query(claimGroups.text, [queue.name, 1, 1, 10, 7, "{}", ["g"], 1]);
  await slow.query("commit");
  expect(claimed.rowCount).toBe(0);
});

it("D-2: an aborting job of a group still counts as running", async () => {
  const queue = open();
  const jobs = await enqueueAll(queue, 2, () => ({ groupKey: "g" }));
  const [first] = await grouped(queue);
  expect(await queue.abort(jobs[0]?.key ?? "")).toBe("aborting");
  expect(await grouped(queue)).toEqual([]);
  if (first) expect(await settle(queue, settlement(first, "complete"))).toBe("aborted");
  expect(keysOf(await grouped(queue))).toEqual([jobs[1]?.key]);
});

it("D-2: groups with the same name in different queues are independent", async () => {
  const [one, two] = [open(), open()];
  await one.enqueue("hello", {}, { groupKey: "g" });
  await two.enqueue("hello", {}, { groupKey: "g" });
  expect(await grouped(one)).toHaveLength(1);
  expect(await grouped(two)).toHaveLength(1);
});

it("P-16: future jobs and jobs of other priorities do not block the due job of their group", async () => {
  const queue = open();
  const scheduled = (await nowSeconds()) + 600;
  await queue.enqueue("hello", {}, { groupKey: "g", scheduled });
  await queue.enqueue("hello", {}, { groupKey: "g", priority: -5 });
  const due = await queue.enqueue("hello", {}, { groupKey: "g", priority: 9 });
  expect(keysOf(await grouped(queue))).toEqual([due.key]);
});

it("an empty string is a valid group key", async () => {
  const queue = open();
  const job = await queue.enqueue("hello", {}, { groupKey: "" });
  expect(keysOf(await grouped(queue))).toEqual([job.key]);
});

it("when there are more groups than one claim visits, the next claims reach the others", async () => {
  const queue = open();
  await enqueueAll(queue, 2_500, (n) => ({ groupKey: `g${n}` }));
  const taken = new Set<string>();
  for (let walk = 0; walk < 6; walk++) for (const { key } of await grouped(queue, 1_000)) taken.add(key);
  expect(taken.size).toBe(2_500);
});

describe("the order of grouped jobs", () => {
  it("D-6: jobs of one group are claimed one at a time, in the order in which they were enqueued", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 12, () => ({ groupKey: "g" }));
    const taken: string[] = [];
    for (;;) {
      const [job, ...others] = await grouped(queue);
      if (!job) break;
      expect(others).toEqual([]);
      taken.push(job.key);
      await settle(queue, settlement(job, "complete"));
    }
    expect(taken).toEqual(keysOf(jobs));
  });

  it("P-15: jobs with lower priority numbers come first, in a group and among groups", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 6, (n) => ({
      groupKey: `g${n % 3}`,
      priority: [4, 5, 6, 3, 2, 1][n],
    }));
    const claimed = await grouped(queue);
    expect(keysOf(claimed)).toEqual([jobs[5]?.key, jobs[4]?.key, jobs[3]?.key]);
  });

  it("P-15: the most urgent jobs of 3,000 groups come first", async () => {
    const queue = open();
    await fill(queue, 3_000, { group: "'g' || n", priority: "5" });
    const urgent = await enqueueAll(queue, 3, (n) => ({ groupKey: `z${n}`, priority: n }));
    expect(keysOf(await grouped(queue, 3))).toEqual(keysOf(urgent));
  });

  it("P-14: 20,000 future jobs of a group do not hide its due job, and a claim reads few pages", async () => {
    const queue = open();
    await fill(queue, 20_000, { due: "$3 + 9000 + n" });
    const due = await queue.enqueue("hello", {}, { groupKey: "g", priority: 7 });
    const { groupHeads, claimGroups } = await statementsOf();
    const heads = await pagesRead(groupHeads, [queue.name, 0, 32767, "", 10, 0, 1]);
    expect(heads).toBeLessThan(60);
    expect(await pagesRead(claimGroups, [queue.name, 0, 32767, 10, 7, "{}", ["g"], 1])).toBeLessThan(200);
    expect(keysOf(await grouped(queue))).toEqual([due.key]);
  });
});

describe("groupConcurrency", () => {
  it("D-2: limits the running jobs of a group over all claims, and lets the next run when one has ended", async () => {
    const queue = open({ groupConcurrency: 3 });
    const jobs = await enqueueAll(queue, 8, (n) => ({ groupKey: n < 7 ? "g" : "other" }));
    const first = await grouped(queue, 2);
    expect(keysOf(first)).toEqual(keysOf(jobs.slice(0, 2)));
    expect(keysOf(await grouped(queue))).toEqual([jobs[2]?.key, jobs[7]?.key]);
    expect(await grouped(queue)).toEqual([]);
    if (first[1]) await settle(queue, settlement(first[1], "failed"));
    expect(keysOf(await grouped(queue))).toEqual([jobs[3]?.key]);
  });

  it("D-2: counts an aborting job as running", async () => {
    const queue = open({ groupConcurrency: 2 });
    const jobs = await enqueueAll(queue, 3, () => ({ groupKey: "g" }));
    expect(await grouped(queue)).toHaveLength(2);
    expect(await queue.abort(jobs[0]?.key ?? "")).toBe("aborting");
    expect(await grouped(queue)).toEqual([]);
  });

  it("D-2: is not exceeded when four claimers claim at the same time, in each of 20 rounds", async () => {
    const queue = open({ groupConcurrency: 3 });
    const claimers = [queue, ...[1, 2, 3].map(() => open({ name: queue.name, groupConcurrency: 3 }))];
    await Promise.all(claimers.map((claimer) => claimer.connect()));
    for (let round = 0; round < 20; round++) {
      await enqueueAll(queue, 9, () => ({ groupKey: `round${round}` }));
      let taken = 0;
      // A claimer that finds the group locked by another claimer returns no job, although the group is not full.
      for (let tries = 0; taken < 3 && tries < 50; tries++)
        taken += (await Promise.all(claimers.map((claimer) => grouped(claimer, 2)))).flat().length;
      expect(taken).toBe(3);
    }
  });
});

describe("a big group and many small groups", () => {
  it("a claim of ungrouped jobs reads less than twice the pages beside a group of 100,000 waiting jobs", async () => {
    const queue = open();
    const { claim: claimUngrouped } = await statementsOf();
    const values = [queue.name, 0, 32767, 10, 7, "{}"];
    await fill(queue, 500, { group: "null" });
    await database.query("vacuum analyze saq_jobs");
    const alone = await pagesRead(claimUngrouped, values);
    await fill(queue, 100_000, { due: "$3 - 5000", priority: "n % 3" });
    await database.query("analyze saq_jobs");
    const beside = await pagesRead(claimUngrouped, values);
    expect(alone).toBeGreaterThan(10);
    expect(beside).toBeLessThan(2 * alone);
    // The big group does not hide other groups either, although its jobs come first.
    const { groupHeads } = await statementsOf();
    await database.query(
      "update saq_jobs set status = 'active' where key = (select min(key) from saq_jobs where queue = $1 and group_key = 'g')",
      [queue.name],
    );
    const others = await enqueueAll(queue, 3, (n) => ({ groupKey: `after${n}` }));
    expect(await pagesRead(groupHeads, [queue.name, 0, 32767, "", 10, 200, 1])).toBeLessThan(1_000);
    expect(keysOf(await grouped(queue))).toEqual(keysOf(others));
  }, 600_000);

  it("the search for jobs of 10,000 small groups reads fewer than 1,500 pages", async () => {
    const queue = open();
    await fill(queue, 10_000, { group: "'g' || n" });
    await database.query("vacuum analyze saq_jobs");
    const { groupHeads } = await statementsOf();
    expect(await pagesRead(groupHeads, [queue.name, 0, 32767, "", 10, 200, 1])).toBeLessThan(1_500);
  });
});

describe("groups whose first job another transaction holds", () => {
  it("P-15: wait until that transaction ends, and do not block other groups", async () => {
    const queue = open();
    const jobs = await enqueueAll(queue, 30, (n) => ({ groupKey: `g${n % 15}` }));
    const other = await database.connect();
    await other.query("begin");
    const held = keysOf(jobs.slice(0, 12));
    await other.query("select 1 from saq_jobs where key = any($1) for update", [held]);
    expect(keysOf(await grouped(queue, 3))).toEqual(keysOf(jobs.slice(12, 15)));
    expect(await grouped(queue, 3)).toEqual([]);
    await other.query("rollback");
    expect(keysOf(await grouped(queue, 12))).toEqual(held);
  });
});

describe("workers", () => {
  it("claim grouped jobs at once, also when the jobs come one by one", async () => {
    const queue = open({ timers: { schedule: 1_000 } });
    const { ended } = await startWorker(queue);
    for (let n = 0; n < 20; n++) {
      const { key } = await queue.enqueue("hello", {}, { groupKey: `g${n % 2}` });
      await ended(key);
    }
  }, 600_000);

  it.each([
    ["is busy", { isBusy: true, inHours: 0 }],
    ["has only future jobs", { isBusy: false, inHours: 1 }],
  ])("ask less and less often for jobs of a group that %s", async (_what, { isBusy, inHours }) => {
    const queue = open();
    if (isBusy) {
      await queue.enqueue("hello", {}, { groupKey: "a" });
      expect(await grouped(queue)).toHaveLength(1);
    }
    await queue.enqueue("hello", {}, { groupKey: "a", scheduled: inSeconds(inHours * 3_600) });
    let looks = 0;
    const hasGrouped = queue.broker.hasGrouped.bind(queue.broker);
    queue.broker.hasGrouped = () => {
      looks++;
      return hasGrouped();
    };
    await startWorker(queue);
    await pause(3_000);
    // One look every 20 ms would be 150 looks.
    expect(looks).toBeGreaterThan(2);
    expect(looks).toBeLessThan(30);
  });

  it("D-2: in four processes run at most groupConcurrency jobs of a group at the same time", async () => {
    const own = await newDatabase("groups");
    const { queue, close } = openForProcesses(own.url);
    try {
      const workers = await Promise.all(
        [1, 2, 3, 4].map(() => WorkerProcess.start({ url: own.url, groupConcurrency: 2, concurrency: 4 })),
      );
      const jobs = Array.from({ length: 60 }, (_, n) =>
        queue.enqueue("nap", { ms: 20 }, { groupKey: `g${n % 5}`, meta: { group: n % 5 } }),
      );
      const keys = keysOf(await Promise.all(jobs));
      await eventually("all have run", async () => {
        const [row] = await own.query<{ left: number }>(
          "select count(*)::int as left from saq_jobs where status <> 'complete'",
        );
        return row?.left === 0;
      });
      const runs = await own.runs();
      expect(runs.map(({ job }) => job).toSorted()).toEqual(keys.toSorted());
      const groupOf = new Map(keys.map((key, n) => [key, n % 5]));
      const most = Math.max(
        ...runs.map(
          (run) =>
            runs.filter(
              (other) =>
                groupOf.get(other.job) === groupOf.get(run.job) &&
                other.started <= run.started &&
                (other.ended ?? 0) > run.started,
            ).length,
        ),
      );
      expect(most).toBe(2);
      await Promise.all(workers.map((worker) => worker.stop()));
    } finally {
      await close();
      await own.drop();
    }
  }, 600_000);
});

async function statementsOf() {
  const client = await database.connect();
  return buildStatements(await ensureSchema(client));
}

/** Returns how many pages a statement reads on a connection with the engine's settings. Changes nothing. */
async function pagesRead({ text }: { text: string }, values: unknown[]): Promise<number> {
  const client = new pg.Client(clientConfig(database.url, { noStartupOptions: false }));
  await client.connect();
  try {
    await client.query("begin");
    const { rows } = await client.query(`explain (analyze, buffers, format json) ${text}`, values);
    await client.query("rollback");
    const { Plan: plan } = rows[0]["QUERY PLAN"][0];
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"];
  } finally {
    await client.end();
  }
}
