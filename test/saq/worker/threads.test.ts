/** Tasks in worker threads (W-13 b), with a worker in this process. */
import { pbkdf2Sync } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, jest } from "@jest/globals";
import { task } from "../../../templates/backend/saq/index.js";
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

async function stage(options: Parameters<typeof openQueue<typeof tasks>>[2] = {}) {
  const queue = openQueue(database, tasks, { threads: 1, ...options });
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
  it("W-13: runs in a thread with payload, progress, meta and log, and its result is that of any task", async () => {
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

  it("D-40: its result goes through the task's schema, and one that is refused fails the job at once", async () => {
    const { queue, ended } = await stage();
    const good = await queue.enqueue("measures", { width: "7" });
    const bad = await queue.enqueue("measures", { width: "-7" });
    await Promise.all([ended(good.key), ended(bad.key)]);
    expect((await good.refresh()).result).toEqual({ width: 7 });
    expect(await bad.refresh()).toMatchObject({ status: "failed", attempts: 1 });
    expect(bad.error).toContain("width");
  });

  it("D-40: a result without JSON form fails its job, and is not tried again", async () => {
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

  it("fails its job with the thread's own error, or why the thread died; the next job finds a thread", async () => {
    const { queue, log, ended } = await stage();
    for (const [how, error] of [
      [
        "throws",
        /^OddError: odd\n.*thread-tasks[\s\S]*\{ code: "E_ODD" \}\n\n {2}Caused by: TypeError: why\n/,
      ],
      ["text", /not an Error: only a text/],
      ["uncloneable", /^Odd: its stack is a function/],
      ["unreadable", /not an Error: \{\}/],
      ["exits", /thread ended with exit code 3 before the task did: something in it called process.exit/],
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

  it("says what is wrong when the thread cannot find or load it", async () => {
    const queue = openQueue(database, { hidden: tasks.hidden, broken });
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

describe("ending a thread", () => {
  it("D-46: a timeout ends the thread that computes on, and only then the next attempt starts", async () => {
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

  it("W-14: an abort is seen by a loop that asks for its signal, and ends one that does not", async () => {
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

  it("D-44: a stop ends threads at the hard deadline, and their jobs go back uncharged", async () => {
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

it("D-46: a thread inside native code ends later than told; its job does not start beside it", async () => {
  const { queue, log, ended } = await stage({ threads: 2, cancellationHardDeadline: 0.1 });
  await warmUp(queue, ended);
  const began = performance.now();
  pbkdf2Sync("password", "salt", 200_000, 64, "sha512");
  const rounds = Math.round((200_000 * 2_500) / (performance.now() - began));
  const { key } = await queue.enqueue("hashes", { rounds }, { timeout: 0.3, retries: 2 });
  expect(await ended(key)).toBe("Retrying hashes");
  expect(await ended(key, 2)).toBe("Finished hashes");
  const messages = log.lines.filter(({ fields }) => fields.job === key).map(({ message }) => message);
  expect(messages.sort()).toEqual(
    [
      "Processing hashes",
      "Function 'hashes' did not finish cancellation in time, it may be stuck or blocked",
      "Retrying hashes",
      "the job's last run still goes on here, so it is given back",
      "Processing hashes",
      "Finished hashes",
    ].sort(),
  );
});

describe("the number of threads", () => {
  it("is kept; a job without one waits uncharged, its timeout does not pass, and other tasks run", async () => {
    const plain = { ...tasks, quick: () => "quick" };
    const queue = openQueue(database, plain, { threads: 1, concurrency: 3 });
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

  it("D-64: a job with NaN that waits for its thread is warned of once, where its task starts", async () => {
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
    const warned = log.lines.filter(({ message }) => message.includes("reads them as null"));
    expect(warned.map(({ fields }) => fields.job)).toEqual([key]);
  });
});
