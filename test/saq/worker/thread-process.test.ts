/** Tasks in threads of real worker processes (W-13 b): as TypeScript with tsx, and compiled with plain Node. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { emptyFolder } from "../../support/folders.js";
import {
  endAllWorkers,
  eventually,
  WorkerProcess,
  type WorkerProcessOptions,
} from "../support/processes/child.js";
import { compileInto } from "../support/processes/compiled.js";
import { newDatabase, type TestDatabase } from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";

jest.setTimeout(600_000);

const folder = emptyFolder();
let database: TestDatabase;
let stage: ReturnType<typeof openQueue>;
let files = 0;

const momentsOf = (file: string): string => {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
};
const runs = (file: string) => eventually(`${file} is written`, async () => momentsOf(file) !== "");

beforeAll(async () => {
  database = await newDatabase("threads");
  stage = openQueue(database.url);
  await stage.queue.connect();
  await compileInto(folder);
});
// A test that failed must not leave a worker that takes the jobs of the next test.
afterEach(endAllWorkers);
afterAll(async () => {
  await stage.close();
  await database.drop();
});

/** Starts threads before a test needs them: a start takes a while, and longer on a busy machine. */
async function warmUp(threads: number): Promise<void> {
  const jobs = await Promise.all(
    Array.from({ length: threads }, () => {
      const file = join(folder, String(++files));
      return stage.queue.enqueue("spin", { ms: 1_000, file });
    }),
  );
  for (const job of jobs) {
    await eventually("threads are warm", async () => (await job.refresh()).status === "complete");
  }
}

const forms = [
  ["as TypeScript", undefined],
  ["compiled", [join(folder, "test/saq/support/processes/worker.js")]],
] as const;

describe.each(forms)("a worker process, %s", (_form, command) => {
  const start = (options: Partial<WorkerProcessOptions> = {}) =>
    WorkerProcess.start({ ...database.worker, withThreads: true, command, ...options });

  it("W-13: counts as alive while its thread computes, and runs its other jobs meanwhile", async () => {
    const timers = { workerInfo: 1, lost: 0.3 };
    // The worker's sign of life is valid for 3 s. The other worker looks for dead workers three times a second.
    const worker = await start({ timers, threads: 1 });
    const file = join(folder, String(++files));
    const end = `${file}.end`;
    const long = await stage.queue.enqueue("spin", { ms: 600_000, file, end }, { timeout: 0 });
    await runs(file);
    const since = performance.now();
    const other = await start({ timers, concurrency: 1 });
    const quick = await Promise.all(Array.from({ length: 20 }, () => stage.queue.enqueue("record")));
    await eventually("the quick ones are done", async () => {
      const states = await Promise.all(quick.map((job) => job.refresh()));
      return states.every(({ status }) => status === "complete");
    });
    await eventually(
      "a sign of life would have expired twice",
      async () => performance.now() - since > 6_000,
    );
    expect((await long.refresh()).status).toBe("active");
    writeFileSync(end, "");
    await worker.said("Finished spin");
    expect(await database.document(long.key)).toMatchObject({ status: "complete", attempts: 1 });
    expect((await long.refresh()).result).toMatchObject({ isMainThread: false, pid: worker.pid });
    expect(long.meta.lost).toBeUndefined();
    const pids = quick.map(({ result }) => result?.pid);
    expect(pids).toContain(worker.pid);
    expect(other.lines.filter(({ message }) => message.startsWith("Sweeping"))).toEqual([]);
    // An idle thread does not keep its process alive.
    for (const { code, ms } of await Promise.all([worker.stop(), other.stop()])) {
      expect(code).toBe(0);
      expect(ms).toBeLessThan(9_500);
    }
  });

  it("D-44: ends within grace period and hard deadline although a thread computes, and requeues the job", async () => {
    const worker = await start({ threads: 1, shutdownGracePeriod: 0.5, cancellationHardDeadline: 1 });
    const file = join(folder, String(++files));
    const { key } = await stage.queue.enqueue("spin", { ms: 60_000, file }, { timeout: 0 });
    await runs(file);
    const { code, ms } = await worker.stop();
    expect(code).toBe(0);
    expect(ms).toBeGreaterThan(1_300);
    expect(ms).toBeLessThan(30_000);
    const document = await database.document(key);
    expect(document).toMatchObject({ status: "queued", meta: { cancellations: 1 } });
    expect(document.attempts).toBeUndefined();
    expect(worker.lines.filter(({ message }) => message.includes("did not finish cancellation"))).toEqual([]);
    await stage.queue.abort(key);
  });

  it("D-46: stops a thread at its job's timeout, and starts the next attempt after the thread has ended", async () => {
    const worker = await start({ threads: 2, cancellationHardDeadline: 0.3 });
    await warmUp(2);
    const file = join(folder, String(++files));
    const { key } = await stage.queue.enqueue("spin", { ms: 60_000, file }, { timeout: 1, retries: 2 });
    await worker.said("Failed spin");
    expect(momentsOf(file)).toMatch(/^(1\n)+(2\n)+$/);
    expect((await database.document(key)).error).toMatch(/^TimeoutError: timed out after 1 s/);
    expect((await worker.stop()).code).toBe(0);
  });
});

it("a thread that runs out of memory fails only its own job", async () => {
  const program = forms[1][1][0];
  const command = ["--max-old-space-size=150", program];
  const worker = await WorkerProcess.start({ ...database.worker, withThreads: true, command, threads: 1 });
  const { key } = await stage.queue.enqueue("ends", { how: "exhausts" }, { timeout: 60 });
  await worker.said("Failed ends");
  expect((await database.document(key)).error).toMatch(/memory/);
  const next = await stage.queue.enqueue("record");
  await worker.said("Finished record");
  expect((await next.refresh()).status).toBe("complete");
  expect((await worker.stop()).code).toBe(0);
});
