/**
 * Programs of SAQ for Python on the same Redis. They run if TEST_SAQ_PYTHON names a Python that has SAQ:
 * `pip install "saq[redis]==0.26.3"`.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { leaseRedisDatabase, type RedisDatabase, redisMissing } from "../../support/redis.js";
import { eventually } from "../support/processes/child.js";
import { PythonSaq, pythonMissing } from "../support/python/python-saq.js";
import { closeAfterTest, closeAll, openQueue, startWorker } from "../support/scenario.js";

const missing = redisMissing ?? pythonMissing;
if (missing) process.stderr.write(`Programs of SAQ for Python on Redis are not tested: ${missing}.\n`);

const runs: string[] = [];
type Ctx = { job: { key: string; attempts: number }; signal: AbortSignal };
const ran = (ctx: Ctx) => void runs.push(ctx.job.key);
const tasks = {
  double: async (ctx: Ctx, { n }: { n: number }) => {
    ran(ctx);
    return 2 * n;
  },
  echo: async (ctx: Ctx, { text }: { text: string }) => {
    ran(ctx);
    return text;
  },
  fail_first: async (ctx: Ctx) => {
    ran(ctx);
    if (ctx.job.attempts === 1) throw new Error("the first attempt fails");
    return "second";
  },
  fail: async (ctx: Ctx) => {
    ran(ctx);
    throw new Error("broken ☂");
  },
  slow: async (ctx: Ctx) => {
    ran(ctx);
    await sleep(60_000, undefined, { signal: ctx.signal });
  },
};
const text = 'päper ☂ "quoted" \u0000 \\n 漢字 👩‍🚀 \uFFFD';

(missing ? describe.skip : describe)("a queue on Redis with programs of SAQ for Python", () => {
  let database: RedisDatabase;
  let name: string;
  let python: PythonSaq;
  let queues = 0;

  beforeAll(async () => {
    database = await leaseRedisDatabase();
  });
  afterAll(() => database?.release());
  beforeEach(async () => {
    runs.length = 0;
    name = `real${process.pid}-${++queues}`;
    python = await PythonSaq.start(database.url, name);
  });
  afterEach(async () => {
    await closeAll();
    await python.close();
  });

  const open = (options: Parameters<typeof openQueue<typeof tasks>>[2] = {}) =>
    openQueue({ url: database.url }, tasks, { name, ...options });
  /**
   * Starts workers. Python's first sweep must be over before there are jobs: it ends a job that a Python worker has
   * taken from the queue and not marked as active yet. The next one is a minute later.
   */
  const work = async (...programs: PythonSaq[]) => {
    for (const program of programs) await program.call("work");
    await eventually("Python has swept", () => database.client.exists(`saq:${name}:sweep`));
  };
  const isEmpty = async () => {
    const queue = open();
    await eventually("nothing is left", async () => (await queue.count("incomplete")) === 0);
    expect(await python.call("info")).toMatchObject({ queued: 0, active: 0, scheduled: 0 });
  };

  describe("our worker, Python's calls", () => {
    beforeEach(async () => {
      await startWorker(open());
    });

    it("returns results to apply, with text of every kind", async () => {
      expect(await python.call("apply", { function: "double", n: 21 })).toBe(42);
      expect(await python.call("apply", { function: "echo", text })).toBe(text);
    });

    it("runs a retry, and Python's apply waits for it", async () => {
      expect(await python.call("apply", { function: "fail_first", retries: 2 })).toBe("second");
    });

    it("tells apply that a job failed, with the error", async () => {
      await expect(python.call("apply", { function: "fail" })).rejects.toThrow(/JobError.*broken ☂/s);
    });

    it("runs a scheduled job once, when it is due", async () => {
      const due = Math.floor(Date.now() / 1_000) + 2;
      const key = String(await python.call("enqueue", { function: "double", n: 1, scheduled: due }));
      await eventually("it is complete", async () => {
        const job = (await python.call("job", { key })) as { status: string };
        return job.status === "complete";
      });
      expect(Date.now() / 1_000).toBeGreaterThanOrEqual(due);
      await sleep(1_500);
      expect(runs).toEqual([key]);
    });

    it("ends a job that Python aborts", async () => {
      const key = String(await python.call("enqueue", { function: "slow" }));
      await eventually("it runs", async () => runs.includes(key));
      await python.call("abort", { key, error: "enough" });
      await eventually("it is aborted", async () => {
        const job = (await python.call("job", { key })) as { status: string; error: string };
        return job.status === "aborted" && job.error === "enough";
      });
      await isEmpty();
    });

    it("refuses an enqueue under the key of a running job, on both sides", async () => {
      const key = "busy";
      expect(await python.call("enqueue", { function: "slow", key })).toBe(key);
      await eventually("it runs", async () => runs.includes(key));
      expect(await python.call("enqueue", { function: "slow", key })).toBeNull();
      expect(await open().enqueueDetailed("slow", undefined, { key })).toMatchObject({ enqueued: false });
    });
  });

  describe("Python's worker, our calls", () => {
    beforeEach(() => work(python));

    it("returns results to apply, with text of every kind", async () => {
      const queue = open();
      expect(await queue.apply("double", { n: 21 }, { timeout: 60 })).toBe(42);
      expect(await queue.apply("echo", { text }, { timeout: 60 })).toBe(text);
      expect(await queue.map("double", [{ n: 1 }, { n: 2 }], { timeout: 60 })).toEqual([2, 4]);
    });

    it("runs a retry, and our apply waits for it", async () => {
      expect(await open().apply("fail_first", undefined, { retries: 2 })).toBe("second");
    });

    it("tells apply that a job failed, with the error", async () => {
      await expect(open().apply("fail")).rejects.toThrow(/broken ☂/);
    });

    it("ends a job that we abort", async () => {
      const queue = open();
      const job = await queue.enqueue("slow");
      await eventually("it runs", async () => python.runs.includes(job.key));
      await job.abort("enough");
      await eventually("it is aborted", async () => (await job.refresh()).status === "aborted");
      expect(job.error).toBe("enough");
      await isEmpty();
    });

    it("frees the key of a job that we abort", async () => {
      const queue = open();
      const key = "one";
      const job = await queue.enqueue("slow", undefined, { key });
      await eventually("it runs", async () => python.runs.includes(key));
      await job?.abort("enough");
      await eventually("it is aborted", async () => (await job?.refresh())?.status === "aborted");
      // Python's abort key, with which it refuses the key, is valid for 5 s.
      await eventually("the key is free", () => queue.enqueue("double", { n: 1 }, { key }));
      await isEmpty();
    });
  });

  it("workers of both sides run each of 400 jobs of both sides once", async () => {
    await startWorker(open());
    const queue = open();
    const second = closeAfterTest(await PythonSaq.start(database.url, name));
    await work(python, second);
    const soon = () => Math.floor(Date.now() / 1_000) + 1;
    const keys = await Promise.all(
      Array.from({ length: 400 }, async (_, n) => {
        const scheduled = n % 4 < 2 ? {} : { scheduled: soon() };
        if (n % 2 === 0) return (await queue.enqueue("double", { n }, scheduled)).key;
        return String(await python.call("enqueue", { function: "double", n, ...scheduled }));
      }),
    );
    await isEmpty();
    const all = [...runs, ...python.runs, ...second.runs];
    expect(all.toSorted()).toEqual(keys.toSorted());
    expect(runs.length).toBeGreaterThan(0);
    expect(python.runs.length + second.runs.length).toBeGreaterThan(0);
    const jobs = await queue.jobs(keys);
    expect(jobs.map((job) => job?.status)).toEqual(keys.map(() => "complete"));
  });

  it("a job of a killed Python worker runs again, by our worker's sweep", async () => {
    const queue = open();
    await work(python);
    const theirs = await queue.enqueue("slow", undefined, { timeout: 1, retries: 2 });
    await eventually("Python runs it", async () => python.runs.includes(theirs.key));
    python.kill();
    const { worker } = await startWorker(open({ timers: { sweep: 1 } }));
    await eventually("it runs again", async () => worker.runningKeys.includes(theirs.key));
    expect(await theirs.refresh()).toMatchObject({ attempts: 2 });
  });

  it("shows the workers and jobs of both sides to both", async () => {
    await startWorker(open());
    await work(python);
    const queue = open();
    await queue.enqueue("double", { n: 1 }, { scheduled: 2 ** 31, key: "later" });
    await eventually("both are listed", async () => (await queue.workers()).length === 2);
    const info = (await python.call("info")) as {
      workers: object;
      scheduled: number;
      jobs: { key: string }[];
    };
    expect(Object.keys(info.workers)).toHaveLength(2);
    expect(info.scheduled).toBe(1);
    expect(info.jobs.map(({ key }) => key)).toEqual(["later"]);
  });
});
