/** Tasks in worker threads (W-13 b), with a worker in this process. */
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, jest } from "@jest/globals";
import { NoRetry, task } from "../../../templates/backend/saq/index.js";
import { emptyFolder } from "../../support/folders.js";
import { broken } from "../support/processes/broken-thread-task.js";
import { tasks } from "../support/processes/thread-tasks.js";
import { insertRow, openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";

jest.setTimeout(600_000);

const database = useDatabase();
const folder = emptyFolder();
let files = 0;
const newFile = () => join(folder, String(++files));
const noted = (file: string): string => {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
};

const stored = async (key: string) => JSON.parse((await rowOf(database, key))?.text ?? "null");

/** The start of a thread counts as part of its first job, and takes more than the default timeout on a busy machine. */
const defaults = { timeout: 120 };

async function stage(options: Parameters<typeof openQueue<typeof tasks>>[2] = {}) {
  const queue = openQueue(database, tasks, { threads: 1, defaults, ...options });
  return { queue, ...(await startWorker(queue)) };
}

/** Starts two threads before a test needs them: a start takes a while, and longer on a busy machine. */
async function warmUp(
  queue: Awaited<ReturnType<typeof stage>>["queue"],
  ended: (key: string) => Promise<string>,
): Promise<void> {
  const jobs = [newFile(), newFile()].map((file) => queue.enqueue("spin", { ms: 500, file }));
  for (const { key } of await Promise.all(jobs)) await ended(key);
}

describe("a task with `thread`", () => {
  it("W-13: has payload, progress, meta and log in its thread, and stores its result like any other task", async () => {
    const { queue, worker, log, ended } = await stage();
    const job = await queue.enqueue("reports", { name: "n" });
    expect(await ended(job.key)).toBe("Finished reports");
    expect((await job.refresh()).result).toEqual({
      key: job.key,
      attempts: 1,
      progress: 0.5,
      meta: { name: "n" },
      queue: queue.name,
      workerId: worker.workerId,
      refused: "progress must be a number of 0 to 1, got 7",
    });
    expect(job.meta).toEqual({ name: "n" });
    const line = await log.saw(({ message }) => message === "half way");
    expect(line).toMatchObject({
      level: "warn",
      fields: { job: job.key, task: "reports", part: 1, name: "n" },
    });

    const date = await queue.enqueue("answers", { what: "date" });
    const nothing = await queue.enqueue("answers", { what: "nothing" });
    await Promise.all([ended(date.key), ended(nothing.key)]);
    expect((await date.refresh()).result).toEqual({
      at: "1970-01-01T00:00:00.000Z",
      own: "as its toJSON says",
    });
    expect((await nothing.refresh()).result).toBeNull();
  });

  it("D-40: validates its result with the task's schema, and a refused result fails the job at once", async () => {
    const { queue, ended } = await stage();
    const good = await queue.enqueue("measures", { width: "7" });
    const bad = await queue.enqueue("measures", { width: "-7" });
    await Promise.all([ended(good.key), ended(bad.key)]);
    expect((await good.refresh()).result).toEqual({ width: 7 });
    expect(await bad.refresh()).toMatchObject({ status: "failed", attempts: 1 });
    expect(bad.error).toContain("width");
  });

  it("D-40: fails without a retry if its result has no JSON form", async () => {
    const { queue, ended } = await stage();
    for (const [what, why] of [
      ["bigint", "serialize a BigInt"],
      ["function", "a function has no JSON form"],
    ] as const) {
      const { key } = await queue.enqueue("answers", { what }, { retries: 3 });
      expect(await ended(key)).toBe("Failed answers");
      expect((await stored(key)).error).toContain(why);
    }
  });

  it("fails with the thread's error or with the reason why the thread ended, and the next job gets a thread", async () => {
    const { queue, log, ended } = await stage();
    for (const [how, error] of [
      [
        "throws",
        /^OddError: odd\n.*thread-tasks[\s\S]*\{ code: "E_ODD" \}\n\n {2}Caused by: TypeError: why\n/,
      ],
      ["text", /not an Error: only a text/],
      ["uncloneable", /^Odd: its stack is a function/],
      ["unreadable", /not an Error: \{\}/],
      [
        "exits",
        /thread ended with exit code 3 before its task ended: code in the thread called process.exit/,
      ],
      ["strays", /outside of any promise/],
    ] as const) {
      const { key } = await queue.enqueue("ends", { how });
      expect(await ended(key)).toBe("Failed ends");
      expect((await stored(key)).error).toMatch(error);
    }
    const last = await queue.enqueue("reports", { name: "after" });
    expect(await ended(last.key)).toBe("Finished reports");
    expect(log.lines.filter(({ level }) => level === "error")).toHaveLength(6);
  });

  it("ends its job without a retry with NoRetry, and runs again after a snooze, as in the main thread", async () => {
    const seen: unknown[] = [];
    const { queue, worker, log, ended } = await stage({
      afterProcess: ({ exception }: { exception: unknown }) => void seen.push(exception),
    });
    const attemptHistory = [{ time: 1, attempt: 1, workerId: null, duration: 2, error: "boom" }];
    const later = await queue.enqueue("stops", { how: "until later" }, { meta: { attemptHistory } });
    expect(await ended(later.key)).toBe("Snoozed stops: its job is due again in 0 s");
    expect(await ended(later.key, 2)).toBe("Finished stops");
    expect((await later.refresh()).result).toEqual({ history: attemptHistory, attempts: 1, snoozes: 1 });
    expect(log.lines.filter(({ level }) => level === "error")).toEqual([]);

    const refused = await queue.enqueue("stops", { how: "for good" });
    expect(await ended(refused.key)).toBe("Failed stops: it threw NoRetry, so its job is not retried");
    const { error, attempts } = await stored(refused.key);
    expect(error).toMatch(
      /^CardRefused: expired\n.*thread-tasks[\s\S]*\{ code: "E_CARD" \}\n\n {2}Caused by: TypeError: why\n/,
    );
    expect(attempts).toBe(1);
    const mistake = await queue.enqueue("stops", { how: "by mistake" });
    expect(await ended(mistake.key)).toBe("Failed stops");
    expect((await stored(mistake.key)).error).toContain("returned ctx.snooze(5), which has no effect");
    expect(worker.stats).toEqual({ complete: 1, failed: 2, retried: 0, aborted: 0 });
    await until(async () => seen.length === 4);
    expect(seen.map((exception) => exception instanceof NoRetry)).toEqual([false, false, true, false]);
  });

  it("fails with the reason if its thread cannot find or load it", async () => {
    const queue = openQueue(database, { hidden: tasks.hidden, broken }, { defaults });
    const { ended } = await startWorker(queue);
    const hidden = await queue.enqueue("hidden");
    const unloaded = await queue.enqueue("broken", undefined, { retries: 2 });
    expect(await ended(hidden.key)).toBe("Failed hidden");
    expect((await stored(hidden.key)).error).toMatch(/thread-tasks.ts must export it/);
    await ended(unloaded.key);
    expect(await ended(unloaded.key, 2)).toBe("Failed broken");
    expect((await stored(unloaded.key)).error).toMatch(/this module wants to be alone/);
    expect(() => task({ thread: "./heavy.js", run: () => 1 })).toThrow(
      "task({ thread }) must be import.meta.url",
    );
  });
});

describe("a thread that must end", () => {
  it("D-46: ends at its job's timeout while it computes, and the next attempt starts only after that", async () => {
    const { queue, ended } = await stage({ threads: 2, cancellationHardDeadline: 0.3 });
    await warmUp(queue, ended);
    const file = newFile();
    const { key } = await queue.enqueue("spin", { ms: 60_000, file }, { timeout: 0.7, retries: 2 });
    expect(await ended(key)).toBe("Retrying spin");
    expect(await ended(key, 2)).toBe("Failed spin");
    expect((await stored(key)).error).toMatch(/^TimeoutError: timed out after 0.7 s/);
    const attempts = noted(file);
    expect(attempts).toMatch(/^(1\n){2,}(2\n){2,}$/);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(noted(file)).toBe(attempts);
  });

  it("W-14: sees an abort if its loop reads the signal, and is ended by the abort otherwise", async () => {
    const { queue, log, ended } = await stage({ threads: 2, timers: { abort: 0.2 } });
    const file = newFile();
    const asks = await queue.enqueue("asks");
    const spins = await queue.enqueue("spin", { ms: 60_000, file });
    await log.saw(({ message }) => message === "computing");
    await until(async () => noted(file).length > 0);
    await Promise.all([asks.abort("enough"), spins.abort("enough")]);
    expect(await ended(asks.key)).toBe("Aborted asks");
    const line = log.lines.find(({ message }) => message === "saw its signal");
    expect(line?.fields).toMatchObject({ reason: "AbortError", job: asks.key });
    expect(await ended(spins.key)).toBe("Aborted spin");
    const moments = noted(file);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(noted(file)).toBe(moments);
    expect(await stored(spins.key)).toMatchObject({ status: "aborted", error: "enough" });
  });

  it("D-44: ends at the hard deadline of a stop, and its job is requeued without counting the attempt", async () => {
    const { queue, worker, log } = await stage({ threads: 2, cancellationHardDeadline: 0.5 });
    const file = newFile();
    const spins = await queue.enqueue("spin", { ms: 60_000, file });
    const waits = await queue.enqueue("waits");
    await log.saw(({ message }) => message === "waiting");
    await until(async () => noted(file).length > 0);
    const began = performance.now();
    await worker.stop({ grace: 0.2 });
    expect(performance.now() - began).toBeLessThan(30_000);
    expect(worker.overdueKeys).toEqual([]);
    const moments = noted(file);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(noted(file)).toBe(moments);
    for (const { key } of [spins, waits]) {
      const document = await stored(key);
      expect(document).toMatchObject({ status: "queued", meta: { cancellations: 1 } });
      expect(document.attempts).toBeUndefined();
    }
    expect(log.lines.find(({ message }) => message === "saw its signal")?.fields.reason).toBe(
      "ShutdownError",
    );
  });
});

it("D-46: a thread in native code ends late, and its job does not start again before that end", async () => {
  const { queue, log, ended } = await stage({ threads: 2, cancellationHardDeadline: 0.1 });
  await warmUp(queue, ended);
  const fifo = newFile();
  execFileSync("mkfifo", [fifo]);
  try {
    const { key } = await queue.enqueue("opens", { fifo }, { timeout: 0.3, retries: 2 });
    expect(await ended(key)).toBe("Retrying opens");
    const messages = () =>
      new Set(log.lines.filter(({ fields }) => fields.job === key).map(({ message }) => message));
    const begun = [
      "Processing opens",
      "Function 'opens' did not finish cancellation in time, it may be stuck or blocked",
      "Retrying opens",
    ];
    const givenBack = "the previous run of this job has not ended in this worker, so the job is given back";
    await until(async () => messages().has(givenBack));
    expect(messages()).toEqual(new Set([...begun, givenBack]));
    release(fifo);
    expect(await ended(key, 2)).toBe("Finished opens");
    expect((await stored(key)).attempts).toBe(2);
  } finally {
    release(fifo);
  }
});

/** Lets the reader of a FIFO continue. */
const release = (fifo: string) => closeSync(openSync(fifo, "r+"));

describe("the number of threads", () => {
  it("is never exceeded; a job that waits for a thread uses no attempt and no timeout, and other tasks run", async () => {
    const plain = { ...tasks, quick: () => "quick" };
    const queue = openQueue(database, plain, { threads: 1, concurrency: 3, defaults });
    const files = [newFile(), newFile(), newFile()];
    const { ended } = await startWorker(queue);
    // The start of the thread counts as run time of the first job, and takes longer on a busy machine.
    await ended((await queue.enqueue("spin", { ms: 1, file: newFile() })).key);
    const jobs = await Promise.all(
      files.map((file) => queue.enqueue("spin", { ms: 5_000, file }, { timeout: 14 })),
    );
    await until(async () => noted(files[0] as string) !== "");
    const quick = await queue.enqueue("quick");
    // There are three slots: one job runs, two jobs wait for the thread until they are given back.
    await Promise.all([...jobs, quick].map(({ key }) => ended(key)));
    for (const job of jobs) {
      await job.refresh();
      expect(job).toMatchObject({ status: "complete", attempts: 1, result: { isMainThread: false } });
    }
    const threads = new Set(jobs.map(({ result }) => result?.threadId));
    expect(threads.size).toBe(1);
  });

  it("D-64: a job with NaN that waits for its thread causes one warning, when its task starts", async () => {
    const { queue, log, ended } = await stage();
    const [first, second] = [newFile(), newFile()];
    const { key: running } = await queue.enqueue("spin", { ms: 500, file: first });
    await until(async () => noted(first) !== "");
    const key = `${queue.name} numbers`;
    const kwargs = `{"ms":1,"file":${JSON.stringify(second)},"more":NaN}`;
    await insertRow(database, {
      key,
      queue: queue.name,
      document: `{"function":"spin","kwargs":${kwargs},"queue":"${queue.name}","key":"${key}","status":"queued"}`,
    });
    expect(await ended(running)).toBe("Finished spin");
    expect(await ended(key)).toBe("Finished spin");
    const warned = log.lines.filter(({ message }) => message.includes("the task reads null instead"));
    expect(warned.map(({ fields }) => fields.job)).toEqual([key]);
  });
});
