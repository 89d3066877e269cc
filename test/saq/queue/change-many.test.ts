/** Changes of all jobs that match a filter: which jobs, which are skipped and why, pages, limits and the log line. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "@jest/globals";
import type { ChangedPage } from "../../../templates/backend/saq/broker.js";
import { decideBulk } from "../../../templates/backend/saq/core/bulk-change.js";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import { encodeChange } from "../../../templates/backend/saq/core/wire.js";
import type { ChangeResult } from "../../../templates/backend/saq/index.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { openProxy } from "../support/cuttable-proxy.js";
import { populate } from "../support/every-state.js";
import { pythonComplaints } from "../support/golden-documents.js";
import { LogBook } from "../support/log-book.js";
import {
  claim,
  insertRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { itWithProxy, itWithPush } from "../support/test-broker.js";

const database = useDatabase();
const failures: Record<string, string> = {};
const tasks = {
  hello: (_ctx: unknown, _payload?: object) => "hi",
  fail: async ({ job }: Context, _payload?: object) => {
    throw new Error(failures[job.key] ?? "boom");
  },
};
type Tasks = typeof tasks;
const open = (options: object = {}): Queue<Tasks> => openQueue(database, tasks, options);

const statesOf = async (queue: Queue<Tasks>, keys: readonly string[]) =>
  (await queue.jobs(keys)).map((job) => job?.status ?? null);

/** Stores failed jobs as a worker leaves them. Returns their keys, in ascending order. */
async function storeFailed(queue: Queue<Tasks>, count: number, prefix = "failed"): Promise<string[]> {
  // Two queues of one database cannot have the same key.
  const keys = Array.from(
    { length: count },
    (_, n) => `${prefix}:${queue.name}:${String(n).padStart(5, "0")}`,
  );
  await queue.enqueueMany(keys.map((key) => ({ task: "fail" as const, payload: {}, key, timeout: 60 })));
  for (let left = count; left > 0; ) {
    const claimed = await claim(queue, { limit: 500 });
    left -= claimed.length;
    const ends = claimed.map((job) =>
      settlement(job, "failed", {
        error: failures[job.key] ?? "Error: boom",
        completed: Math.round(queue.broker.now()),
      }),
    );
    await Promise.all(ends.map((end) => settle(queue, end)));
  }
  return keys;
}

/** Aborts a job in another process, and waits for it without giving this process a turn. */
function abortInOtherProcess(queue: string, key: string): void {
  const program = fileURLToPath(new URL("../support/processes/abort-job.ts", import.meta.url));
  const args = ["--import", "tsx", program, database.url, queue, key];
  const { status, stderr } = spawnSync(process.execPath, args, {
    encoding: "utf8",
    env: { ...process.env, NODE_OPTIONS: "" },
  });
  if (status !== 0) throw new Error(stderr);
}

/** Waits until the clock of the database shows a later ms: what happens then is later than what happened before. */
const laterMs = async (queue: Queue<Tasks>) => {
  const now = queue.broker.now();
  await until(async () => queue.broker.now() > now + 2);
};

describe("retry", () => {
  it("queues failed jobs again as a retry of one job does, and leaves all others", async () => {
    const queue = open();
    const keys = await populate(queue);
    const twin = open();
    const twins = await populate(twin);
    expect(await queue.changeMany({}, "retry")).toEqual({
      matched: 1,
      changed: 1,
      skipped: {},
      cursor: null,
    });
    expect(await twin.retry(twins.failed ?? "")).toBe("queued");
    const [row, single] = [
      await rowOf(database, keys.failed ?? ""),
      await rowOf(database, twins.failed ?? ""),
    ];
    const timeless = (text: string, key = "", name = "") =>
      text
        .replaceAll(key, "KEY")
        .replaceAll(name, "QUEUE")
        .replaceAll(/\d{10,}/g, "TIME");
    expect(timeless(row?.text ?? "", keys.failed, queue.name)).toBe(
      timeless(single?.text ?? "", twins.failed, twin.name),
    );
    expect(row).toMatchObject({ status: "queued", expire_at: null, group_key: null, priority: 0 });
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
    expect(await statesOf(queue, Object.values(keys))).toEqual([
      "complete",
      "queued",
      "aborted",
      "active",
      "aborting",
      "queued",
      "queued",
    ]);
    expect(queue.counters.retried).toBe(1);
  });

  it("takes all finished jobs if the filter names their statuses, and skips those that are not finished", async () => {
    const queue = open();
    const keys = await populate(queue);
    const statuses = ["queued", "active", "aborting", "complete", "failed", "aborted"] as const;
    expect(await queue.changeMany({ statuses }, "retry", { error: "again", resetAttempts: false })).toEqual({
      matched: 7,
      changed: 3,
      skipped: { not_finished: 4 },
      cursor: null,
    });
    for (const status of ["complete", "failed", "aborted"])
      expect(await queue.job(keys[status] ?? "")).toMatchObject({
        status: "queued",
        error: "again",
        attempts: 1,
      });
  });

  itWithPush("wakes an idle worker, which runs the jobs", async () => {
    const queue = open();
    const [key = ""] = await storeFailed(queue, 1);
    const { ended } = await startWorker(open({ name: queue.name, timers: { schedule: 60 } }));
    await queue.changeMany({}, "retry");
    expect(await ended(key)).toMatch(/^Failed fail/);
  });

  it("changes each of many jobs once, page by page, also while a worker runs them and they fail again", async () => {
    const queue = open();
    await storeFailed(queue, 1_100);
    const worker = open({ name: queue.name, concurrency: 20 });
    const { log } = await startWorker(worker);
    const pages: ChangeResult[] = [];
    const result = await queue.changeMany({}, "retry", { onProgress: (progress) => pages.push(progress) });
    expect(result).toEqual({ matched: 1_100, changed: 1_100, skipped: {}, cursor: null });
    expect(pages.filter(({ changed }) => changed > 0).length).toBeGreaterThanOrEqual(3);
    expect(pages.at(-1)).toEqual(result);
    expect(Math.max(...pages.map(({ changed }, index) => changed - (pages[index - 1]?.changed ?? 0)))).toBe(
      500,
    );
    await until(
      async () => log.lines.filter(({ message }) => message.startsWith("Failed fail")).length === 1_100,
    );
    expect((await queue.counts()).failed).toBe(1_100);
    expect(queue.counters.retried).toBe(1_100);
  });

  it("does not touch jobs that fail after its start, also if it goes on later", async () => {
    const queue = open();
    const old = await storeFailed(queue, 2, "old");
    await laterMs(queue);
    const first = await queue.changeMany({}, "retry", { limit: 1 });
    expect(first).toMatchObject({ matched: 1, changed: 1, cursor: expect.any(String) });
    await laterMs(queue);
    // Its key comes after the others, and it fails after the start.
    const [late = ""] = await storeFailed(queue, 1, "late");
    await storeFailed(queue, 1, "z");
    const rest = await queue.changeMany({}, "retry", { cursor: first.cursor ?? "" });
    expect(rest).toEqual({ matched: 1, changed: 1, skipped: {}, cursor: null });
    expect(await statesOf(queue, [late, `z:${queue.name}:00000`])).toEqual(["failed", "failed"]);
    expect(old).toHaveLength(2);
  });
});

describe("abort", () => {
  it("ends waiting jobs, asks running ones to end, and counts both", async () => {
    const queue = open();
    const keys = await populate(queue);
    expect(await queue.changeMany({}, "abort", { error: "enough" })).toEqual({
      matched: 3,
      changed: 3,
      skipped: {},
      cursor: null,
    });
    expect(
      await statesOf(
        queue,
        ["scheduled", "queued", "active"].map((state) => keys[state] ?? ""),
      ),
    ).toEqual(["aborted", "aborted", "aborting"]);
    expect(await queue.job(keys.queued ?? "")).toMatchObject({
      error: "enough",
      completed: expect.any(Number),
    });
    // The running one is counted by its worker.
    expect(queue.counters.aborted).toBe(2);
    expect(await claim(queue)).toEqual([]);
    expect(await queue.counts()).toMatchObject({ queued: 0, scheduled: 0, active: 0 });
  });

  it("asks a job to end that a worker has taken since the start of the change", async () => {
    const queue = open();
    for (const key of ["a", "b", "c"]) await queue.enqueue("hello", {}, { key: `${key}:${queue.name}` });
    const first = await queue.changeMany({}, "abort", { limit: 1 });
    await laterMs(queue);
    const [taken] = await claim(queue, { limit: 1 });
    const rest = await queue.changeMany({}, "abort", { cursor: first.cursor ?? "" });
    expect(rest).toMatchObject({ matched: 2, changed: 2, cursor: null });
    expect((await queue.job(taken?.key ?? ""))?.status).toBe("aborting");
  });

  it("skips finished jobs, and those that are being aborted already", async () => {
    const queue = open();
    await populate(queue);
    const statuses = ["aborting", "complete", "failed", "aborted"] as const;
    expect(await queue.changeMany({ statuses }, "abort")).toMatchObject({
      matched: 4,
      changed: 0,
      skipped: { aborting: 1, finished: 3 },
    });
  });

  it("deletes waiting jobs that are not kept, and ends those that wait for them", async () => {
    const queue = open();
    const job = await queue.enqueue("hello", {}, { ttl: -1 });
    const end = job.refresh(60);
    expect(await queue.changeMany({ statuses: ["queued"] }, "abort")).toMatchObject({ changed: 1 });
    await expect(end).rejects.toMatchObject({ code: "job_gone" });
  });

  it("ends many waiting jobs between others that do not match, and leaves the order of the rest", async () => {
    const queue = open();
    const entries = Array.from({ length: 1_300 }, (_, n) => ({
      task: n % 3 === 0 ? ("hello" as const) : ("fail" as const),
      payload: { n },
    }));
    await queue.enqueueMany(entries);
    expect(await queue.changeMany({ task: "fail" }, "abort")).toMatchObject({ matched: 866, changed: 866 });
    expect(await queue.counts()).toMatchObject({ queued: 434, aborted: 866 });
    const left = await claim(queue, { limit: 500 });
    const numbers = left.map(({ document }) => (JSON.parse(document) as { kwargs: { n: number } }).kwargs.n);
    expect(numbers).toEqual(Array.from({ length: 434 }, (_, n) => 3 * n));
  });
});

describe("delete", () => {
  it("deletes finished jobs, and with statuses also waiting ones; running jobs are skipped", async () => {
    const queue = open();
    const keys = await populate(queue);
    await insertRow(database, { key: "poison", queue: queue.name, document: "{", status: "queued" });
    expect(await queue.changeMany({}, "delete")).toMatchObject({ matched: 3, changed: 3, skipped: {} });
    const statuses = ["queued", "active", "aborting"] as const;
    expect(await queue.changeMany({ statuses }, "delete")).toMatchObject({
      matched: 5,
      changed: 3,
      skipped: { running: 2 },
    });
    expect(await statesOf(queue, [...Object.values(keys), "poison"])).toEqual([
      null,
      null,
      null,
      "active",
      "aborting",
      null,
      null,
      null,
    ]);
    expect(await queue.counts()).toMatchObject({
      queued: 0,
      scheduled: 0,
      complete: 0,
      failed: 0,
      aborted: 0,
    });
  });
});

describe("runNow", () => {
  it("makes jobs due that wait for their time, and skips ticks of recurring tasks", async () => {
    const queue = open();
    const later = await queue.enqueue("hello", {}, { scheduled: inSeconds(3_600), key: "later" });
    const due = await queue.enqueue("hello", {});
    const tick = await queue.enqueue("hello", {}, { scheduled: inSeconds(3_600), key: "cron:nightly" });
    expect(await queue.changeMany({}, "runNow")).toEqual({
      matched: 2,
      changed: 1,
      skipped: { schedule: 1 },
      cursor: null,
    });
    expect(await queue.changeMany({ statuses: ["queued"], due: true }, "runNow")).toMatchObject({
      matched: 2,
      changed: 0,
      skipped: { already_due: 2 },
    });
    expect(pythonComplaints((await rowOf(database, "later"))?.text ?? "", queue.name)).toEqual([]);
    const claimed = (await claim(queue)).map(({ key }) => key);
    expect(claimed.sort()).toEqual([later?.key, due.key].sort());
    expect((await tick?.refresh())?.status).toBe("queued");
  });

  it("starts retries that wait for their delay", async () => {
    const queue = open();
    const job = await queue.enqueue("fail", {}, { retries: 2, retryDelay: 3_600 });
    const { ended } = await startWorker(open({ name: queue.name }));
    await ended(job.key);
    expect(await queue.changeMany({}, "runNow")).toMatchObject({ matched: 1, changed: 1 });
    expect(await ended(job.key, 2)).toMatch(/^Failed/);
  });
});

describe("every change", () => {
  it.each(["retry", "abort", "delete", "runNow"] as const)(
    "%s with dryRun changes nothing and counts what it would change",
    async (action) => {
      const queue = open();
      const keys = Object.values(await populate(queue));
      const before = await Promise.all(keys.map((key) => rowOf(database, key)));
      const result = await queue.changeMany({}, action, { dryRun: true });
      expect(result).toMatchObject({
        matched: { retry: 1, abort: 3, delete: 3, runNow: 1 }[action],
        changed: { retry: 1, abort: 3, delete: 3, runNow: 1 }[action],
        skipped: {},
      });
      expect(await Promise.all(keys.map((key) => rowOf(database, key)))).toEqual(before);
      expect(queue.counters).toMatchObject({ retried: 0, aborted: 0 });
    },
  );

  it("looks into the jobs: task, part of the error, beginning of the key, time of the enqueue", async () => {
    const queue = open();
    failures[`e:${queue.name}:00001`] = 'connect ECONNREFUSED "päper" ☂\nat line 2';
    const failed = await storeFailed(queue, 2, "e");
    const { key } = await queue.enqueue("hello", {});
    await claim(queue);
    await queue.finish(key, "failed", { error: "ECONNREFUSED" });
    const dry = async (filter: Parameters<typeof queue.changeMany>[0]) =>
      (await queue.changeMany(filter, "retry", { dryRun: true })).matched;
    expect(await dry({})).toBe(3);
    expect(await dry({ task: "fail" })).toBe(2);
    expect(await dry({ task: "fai" })).toBe(0);
    expect(await dry({ error: "ECONNREFUSED" })).toBe(2);
    expect(await dry({ error: 'ECONNREFUSED "päper" ☂\nat' })).toBe(1);
    expect(await dry({ error: "econnrefused" })).toBe(0);
    expect(await dry({ task: "fail", error: "ECONNREFUSED" })).toBe(1);
    expect(await dry({ keyPrefix: "e:" })).toBe(2);
    expect(await dry({ keyPrefix: `e:${queue.name}:00001` })).toBe(1);
    expect(await dry({ keyPrefix: "%" })).toBe(0);
    const queued = (await queue.job(failed[0] ?? ""))?.queued ?? 0;
    expect(await dry({ enqueuedAfter: queued })).toBe(3);
    expect(await dry({ enqueuedAfter: new Date(queued + 60_000) })).toBe(0);
    expect(await dry({ enqueuedBefore: new Date(queued) })).toBe(0);
    expect(await dry({ enqueuedBefore: queued + 60_000 })).toBe(3);
  });

  it("does not touch jobs of other queues", async () => {
    const [queue, other] = [open(), open()];
    const keys = await populate(other);
    for (const action of ["retry", "abort", "delete", "runNow"] as const)
      expect(await queue.changeMany({ statuses: ["queued", "failed", "active"] }, action)).toMatchObject({
        matched: 0,
      });
    expect(await statesOf(other, Object.values(keys))).not.toContain(null);
  });

  it("does not touch jobs that are enqueued after its start", async () => {
    const queue = open();
    for (const key of ["a", "b", "c"]) await queue.enqueue("hello", {}, { key: `${key}:${queue.name}` });
    const first = await queue.changeMany({ task: "hello" }, "abort", { limit: 1 });
    await laterMs(queue);
    const late = [
      await queue.enqueue("hello", {}, { key: `0:${queue.name}` }),
      await queue.enqueue("hello", {}, { key: `z:${queue.name}`, scheduled: inSeconds(3_600) }),
    ];
    const rest = await queue.changeMany({ task: "hello" }, "abort", { cursor: first.cursor ?? "" });
    expect(rest).toMatchObject({ matched: 2, changed: 2, cursor: null });
    for (const job of late) expect((await job?.refresh())?.status).toBe("queued");
  });

  it("stops at its limit, and goes on with its cursor", async () => {
    const queue = open();
    const keys = await storeFailed(queue, 7);
    const first = await queue.changeMany({}, "retry", { limit: 3 });
    expect(first).toMatchObject({ matched: 3, changed: 3 });
    const second = await queue.changeMany({}, "retry", { limit: 3, cursor: first.cursor ?? "" });
    expect(second).toMatchObject({ matched: 3, changed: 3 });
    const third = await queue.changeMany({}, "retry", { cursor: second.cursor ?? "" });
    expect(third).toMatchObject({ matched: 1, changed: 1, cursor: null });
    expect(new Set(await statesOf(queue, keys))).toEqual(new Set(["queued"]));
  });

  it("goes on with its cursor after a dry run too, and after jobs that it has skipped", async () => {
    const queue = open();
    await storeFailed(queue, 5);
    const seen: number[] = [];
    let cursor: string | null | undefined;
    do {
      const page: ChangeResult = await queue.changeMany({}, "retry", {
        dryRun: true,
        limit: 2,
        ...(cursor ? { cursor } : {}),
      });
      seen.push(page.matched);
      cursor = page.cursor;
    } while (cursor !== null);
    expect(seen.reduce((sum, matched) => sum + matched, 0)).toBe(5);
    expect(seen.slice(0, 2)).toEqual([2, 2]);
  });

  it("stops after a page when its signal fires, and returns where to go on", async () => {
    const queue = open();
    await storeFailed(queue, 1_001);
    const stop = new AbortController();
    const first = await queue.changeMany({}, "retry", {
      signal: stop.signal,
      onProgress: ({ changed }) => changed > 0 && stop.abort(),
    });
    expect(first.changed).toBeGreaterThan(0);
    expect(first.changed).toBeLessThanOrEqual(500);
    const rest = await queue.changeMany({}, "retry", { cursor: first.cursor ?? "" });
    expect(first.changed + rest.changed).toBe(1_001);
    const none = await queue.changeMany({}, "abort", { signal: AbortSignal.abort() });
    expect(none).toMatchObject({ matched: 0, changed: 0, cursor: expect.any(String) });
  });

  it("decides again about a job that another process changes before it is written", async () => {
    const queue = open();
    const keys = [(await queue.enqueue("hello", {})).key, (await queue.enqueue("hello", {})).key];
    let aborted: string | undefined;
    const seen: string[] = [];
    const answers: string[] = [];
    // On Redis, the first page has the jobs of the future.
    for (let after: string | null = ""; after !== null; ) {
      const page: ChangedPage<string> = await queue.broker.changePage(
        { selection: { statuses: ["queued"] }, after, limit: 10 },
        (row) => {
          if (aborted === undefined) {
            aborted = row.key;
            abortInOtherProcess(queue.name, row.key);
          }
          seen.push(`${row.key} ${row.status}`);
          if (row.status !== "queued") return null;
          return { change: { status: "queued", ...encodeChange({ error: "seen" }) }, answer: row.key };
        },
      );
      expect(page.held).toBe(0);
      answers.push(...page.answers);
      after = page.next;
    }
    const other = keys.find((key) => key !== aborted) ?? "";
    expect(answers).toEqual([other]);
    expect(seen.sort()).toEqual([`${aborted} queued`, `${aborted} aborted`, `${other} queued`].sort());
    expect(await queue.job(aborted ?? "")).toMatchObject({ status: "aborted", error: "by another process" });
    expect(await queue.job(other)).toMatchObject({ status: "queued", error: "seen" });
  });

  itWithProxy.each(["retry", "delete", "abort", "runNow"] as const)(
    "%s: counts a page as changed whose response was lost",
    async (action) => {
      const stored = open();
      const keys = await storeFailed(stored, 3);
      const { key: waiting } = await stored.enqueue("hello", {}, { scheduled: inSeconds(3_600) });
      const proxy = await openProxy(database);
      const queue = openQueue(proxy, tasks, { name: stored.name });
      const statuses = action === "abort" || action === "runNow" ? ["queued" as const] : ["failed" as const];
      const settings = { error: "", resetAttempts: true, failedTtl: 600 };
      let isLost = false;
      const { answers } = await queue.broker.changePage(
        { selection: { statuses }, after: "", limit: 10 },
        (row, clock) => {
          if (!isLost) void proxy.mute().then(() => proxy.cut());
          isLost = true;
          return statuses.some((status) => status === row.status)
            ? decideBulk(action, row, clock, settings)
            : { change: null, answer: "finished" as const };
        },
      );
      const count = statuses[0] === "queued" ? 1 : 3;
      expect(answers).toEqual(Array(count).fill("changed"));
      const after = { retry: "queued", delete: null, abort: "aborted", runNow: "queued" }[action];
      const changed = statuses[0] === "queued" ? [waiting] : keys;
      expect(await statesOf(stored, changed)).toEqual(changed.map(() => after));
    },
  );

  it("logs one line at its end: who, what, which jobs, how many and how long; a dry run logs none", async () => {
    const log = new LogBook();
    const queue = open({ logger: log });
    await populate(queue);
    await queue.changeMany({}, "delete", { dryRun: true });
    await queue.changeMany({ statuses: ["failed"], task: "hello" }, "delete", { by: "ann" });
    const lines = log.lines.filter(({ message }) => message.startsWith("Changed jobs by filter"));
    expect(lines).toEqual([
      {
        level: "info",
        message: "Changed jobs by filter: delete, 1 of 1 jobs",
        fields: {
          queue: queue.name,
          action: "delete",
          by: "ann",
          filter: { statuses: ["failed"], task: "hello" },
          matched: 1,
          changed: 1,
          skipped: {},
          cursor: null,
          seconds: expect.any(Number),
        },
      },
    ]);
    const broken = queue.changeMany({}, "retry", {
      onProgress: () => {
        throw new Error("no more");
      },
    });
    await expect(broken).rejects.toThrow("no more");
    expect(log.lines.at(-1)).toMatchObject({
      level: "error",
      message: expect.stringMatching(/^Changed jobs by filter: retry, 0 of 0 jobs; it ended with an error$/),
      fields: { by: expect.stringMatching(/:\d+$/), err: expect.any(Error) },
    });
  });

  it("refuses a cursor of another filter, action or queue, and takes one of the same filter", async () => {
    const queue = open();
    await populate(queue);
    const filter = { enqueuedAfter: 1, statuses: ["failed", "aborted"] as const };
    const stopped = { dryRun: true, signal: AbortSignal.abort() };
    const cursor = (await queue.changeMany(filter, "retry", stopped)).cursor ?? "";
    const others = [
      () => queue.changeMany({ ...filter, task: "hello" }, "retry", { cursor }),
      () => queue.changeMany(filter, "delete", { cursor }),
      () => open().changeMany(filter, "retry", { cursor }),
    ];
    for (const call of others)
      await expect(call()).rejects.toMatchObject({
        code: "invalid_job",
        message: expect.stringContaining("the cursor is one of a change with another queue, action or filter"),
      });
    const same = { statuses: ["aborted", "failed"] as const, enqueuedAfter: new Date(1) };
    expect(await queue.changeMany(same, "retry", { cursor })).toMatchObject({ changed: 2, cursor: null });
  });

  it.each<[object, string, object, string]>([
    [{ state: 1 }, "retry", {}, 'there is no condition "state"; conditions: statuses, due, task'],
    [{ task: undefined }, "delete", {}, "task is undefined. Leave it out"],
    [{ statuses: ["new"] }, "retry", {}, "statuses must be a list of queued, active"],
    [{ statuses: "failed" }, "retry", {}, 'got "failed"'],
    [{ task: 7 }, "retry", {}, "task must be a text, got 7"],
    [{ enqueuedBefore: "today" }, "retry", {}, 'enqueuedBefore must be a Date or epoch ms, got "today"'],
    [{ due: 1 }, "abort", {}, "due must be true or false, got 1"],
    [{ due: false }, "delete", {}, "due is a condition of queued jobs, and the statuses are complete, failed, aborted."],
    [{ due: true, statuses: ["failed"] }, "retry", {}, "Add queued to statuses, or leave due out"],
    [{}, "restart", {}, 'changeMany takes retry, abort, delete, runNow, got "restart"'],
    [{}, "retry", { limit: 0 }, "limit must be a whole number >= 1, got 0"],
    [{}, "retry", { cursor: "?" }, 'cursor must be the cursor of a previous result, got "?"'],
  ])("refuses %j, %s, %j, and changes nothing", async (filter, action, options, message) => {
    const queue = open();
    const keys = await populate(queue);
    const call = queue.changeMany(filter as never, action as never, options as never);
    await expect(call).rejects.toMatchObject({
      code: "invalid_job",
      message: expect.stringContaining(message),
    });
    expect(await statesOf(queue, Object.values(keys))).toEqual([
      "complete",
      "failed",
      "aborted",
      "active",
      "aborting",
      "queued",
      "queued",
    ]);
  });
});
