/** Reading jobs: counts, listen, iterJobs, and what a job object says about its job. */
import { describe, expect, it } from "@jest/globals";
import { type JobFields, jobDefaults } from "../../../templates/backend/saq/core/job.js";
import { TimeoutError } from "../../../templates/backend/saq/errors.js";
import { Job, type JobOwner } from "../../../templates/backend/saq/queue/job-handle.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { populate } from "../support/every-state.js";
import { claim, insertRow, openQueue, startWorker, useDatabase } from "../support/scenario.js";
import { itWithPush, onRedis } from "../support/test-broker.js";

const database = useDatabase();
const tasks = { work: async (_ctx: Context, _payload?: { n: number }) => "done" };
const open = (options: object = {}) => openQueue(database, tasks, options);

describe("counts", () => {
  it("P-32, T-5: queued, incomplete and active change when a job is enqueued, claimed and finished", async () => {
    const queue = open();
    const counts = async () => [
      await queue.count("queued"),
      await queue.count("incomplete"),
      await queue.count("active"),
    ];
    const job = await queue.enqueue("work");
    expect(await counts()).toEqual([1, 1, 0]);
    await claim(queue);
    expect(await counts()).toEqual([0, 1, 1]);
    await queue.finish(job.key, "complete");
    expect(await counts()).toEqual([0, 0, 0]);
  });

  it("T-5: an enqueue wakes a waiting worker", async () => {
    const queue = open({ timers: { schedule: 60 } });
    const { worker } = await startWorker(
      openQueue(database, tasks, { name: queue.name, timers: { schedule: 60 } }),
    );
    expect(await queue.apply("work", undefined, { waitTimeout: 9 })).toBe("done");
    expect(await queue.apply("work", undefined, { waitTimeout: 9 })).toBe("done");
    expect(worker.runningKeys).toEqual([]);
  });

  it("T-10: a failed job with a retryDelay of 100 s waits before its next attempt", async () => {
    const queue = openQueue(database, {
      fails: async () => {
        throw new Error("once");
      },
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("fails", undefined, { retries: 2, retryDelay: 100 });
    expect(await ended(job.key)).toBe("Retrying fails");
    expect(await queue.counts()).toMatchObject({ scheduled: 1, queued: 0, failed: 0 });
    expect((await job.refresh()).scheduled - Date.now() / 1_000).toBeGreaterThan(50);
  });
});

describe("listen", () => {
  it("Q-8: calls back for each existing job at each poll, changed or not, until the callback returns true", async () => {
    const queue = open();
    const [one, two] = [await queue.enqueue("work"), await queue.enqueue("work")];
    const calls: string[] = [];
    await queue.listen(
      [one.key, "missing", two.key],
      async (key, status) => {
        calls.push(`${key} ${status}`);
        return calls.length === 5;
      },
      { pollInterval: 0.01 },
    );
    const [a, b] = [`${one.key} queued`, `${two.key} queued`];
    expect(calls).toEqual([a, b, a, b, a]);
  });

  itWithPush(
    "Q-8: a notification of an awaited end or of an abort wakes it long before the next poll",
    async () => {
      const queue = open();
      /** Listens until the job has the status `wanted`. `first` resolves after the first look. */
      const listenFor = (key: string, wanted: string) => {
        let ended = Promise.resolve();
        const first = new Promise<void>((resolve) => {
          ended = queue.listen(
            [key],
            (_key, status) => {
              resolve();
              return status === wanted;
            },
            { pollInterval: 60, timeout: 9 },
          );
        });
        return { first, ended };
      };
      const job = await queue.enqueue("work", undefined, { meta: { awaited: true } });
      const done = listenFor(job.key, "complete");
      await done.first;
      await startWorker(openQueue(database, tasks, { name: queue.name }));
      await done.ended;
      const other = await queue.enqueue("work", undefined, { scheduled: 4e9 });
      const aborted = listenFor(other.key, "aborted");
      await aborted.first;
      await queue.abort(other.key);
      await aborted.ended;
    },
  );

  it("Q-8: rejects with TimeoutError after its timeout, and with the error that its callback throws", async () => {
    const queue = open();
    const job = await queue.enqueue("work");
    await expect(queue.listen([job.key, "other"], () => false, { timeout: 0.05 })).rejects.toThrow(
      TimeoutError,
    );
    await expect(
      queue.listen([job.key], () => {
        throw new Error("of the callback");
      }),
    ).rejects.toThrow("of the callback");
    await expect(queue.listen([job.key], () => true, { pollInterval: 0 })).rejects.toThrow(
      "listen: pollInterval must be seconds > 0, got 0",
    );
    await expect(queue.listen([5] as never, () => true)).rejects.toThrow(
      "listen: keys must be an array of texts, got [5]",
    );
    await expect(queue.listen([job.key], () => true, { timeout: -5 })).rejects.toThrow(
      "listen: timeout must be null or seconds >= 0",
    );
  });

  it("Q-8, T-18: polling finds a change without a notification; T-14: an update without a status keeps the status", async () => {
    const queue = open();
    const job = await queue.enqueue("work");
    const listened = queue.listen([job.key], async () => (await queue.job(job.key))?.progress === 0.5, {
      pollInterval: 0.02,
    });
    expect(await queue.update(job.key, { progress: 0.5 })).toBe("updated");
    await listened;
    expect(await queue.job(job.key)).toMatchObject({ status: "queued", progress: 0.5 });
    expect(job.progress).toBe(0);
  });
});

describe("iterJobs", () => {
  it.each([1, 2, 3, 100])(
    "P-28, T-21: gives each job once, %p per query, on tables in key order",
    async (batchSize) => {
      const queue = open();
      const keys: string[] = [];
      for (let n = 0; n < 9; n++) keys.push((await queue.enqueue("work")).key);
      await queue.abort(keys[3] as string);
      const seen: Job[] = [];
      for await (const job of queue.iterJobs({ batchSize })) seen.push(job);
      const found = seen.map(({ key }) => key);
      expect(onRedis ? found.toSorted() : found).toEqual(keys);
      const aborted: string[] = [];
      for await (const job of queue.iterJobs({ batchSize, statuses: ["aborted"] })) aborted.push(job.key);
      expect(aborted).toEqual([keys[3]]);
    },
  );

  it("D-16: holds no connection while the caller works, and also yields unreadable rows", async () => {
    const queue = openQueue(database, tasks, { maxSize: 2 });
    await queue.enqueue("work");
    await insertRow(database, { key: "0-poison", queue: queue.name, document: "{" });
    const names: string[] = [];
    for await (const job of queue.iterJobs({ batchSize: 1 })) {
      // If iterJobs held the only connection for statements, this call would wait for ever.
      await queue.counts();
      names.push(job.function);
    }
    expect(names.toSorted()).toEqual(["(unreadable)", "work"]);
  });

  it("P-28: refuses an invalid batchSize", async () => {
    const next = open().iterJobs({ batchSize: 0 }).next();
    await expect(next).rejects.toThrow("iterJobs: batchSize must be a whole number >= 1, got 0");
  });

  it("V-2: yields jobs of every state", async () => {
    const queue = openQueue(database, { hello: (_ctx: unknown, _payload?: object) => "hi" });
    const keys = await populate(queue);
    const seen: string[] = [];
    for await (const job of queue.iterJobs()) seen.push(job.key);
    expect(seen.toSorted()).toEqual(Object.values(keys).toSorted());
  });
});

/** Creates a job object that needs no database. */
function jobOf(fields: Partial<JobFields>): Job {
  const owner = { now: () => 9_000.4 } as JobOwner;
  return new Job(owner, { ...jobDefaults, function: "f", queueName: "q", key: "k", meta: {}, ...fields });
}

describe("a job object", () => {
  it("J-9: equals another job object with the same key, whatever the other fields are", async () => {
    const queue = open();
    const job = await queue.enqueue("work");
    await claim(queue);
    const found = await queue.job(job.key);
    expect(found && job.equals(found)).toBe(true);
    expect(job.equals(await queue.enqueue("work"))).toBe(false);
  });

  it("J-10, T-82: returns durations in ms, or null when the job has not reached that point", () => {
    const job = jobOf({ queued: 1_000, started: 3_000, completed: 7_000 });
    expect(job.duration("start")).toBe(2_000);
    expect(job.duration("process")).toBe(4_000);
    expect(job.duration("total")).toBe(6_000);
    expect(job.duration("running")).toBe(6_000);
    const waiting = jobOf({ queued: 1_000 });
    for (const kind of ["start", "process", "total", "running"] as const)
      expect(waiting.duration(kind)).toBeNull();
    // @ts-expect-error no such kind
    expect(() => job.duration("idle")).toThrow(
      'duration takes "process", "start", "total" or "running", got "idle"',
    );
  });

  it("T-93: values that cannot be compared or written as JSON break neither info() nor toDocument()", () => {
    const odd = { nan: Number.NaN, map: new Map([[1, 2]]), bare: Object.create(null) as object };
    const job = jobOf({ kwargs: odd, result: odd });
    expect(job.info(true)).toContain('kwargs: {"nan":null,"map":{},"bare":{}}');
    expect(job.toDocument()).toMatchObject({ kwargs: { nan: null, map: {}, bare: {} } });
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    expect(jobOf({ kwargs: { big: 5n }, meta: circular }).info(true)).toBe(
      "Job<function: f, kwargs: [object Object], queue: q, key: k, meta: [object Object]>",
    );
  });

  it("J-18, T-81: info() returns one line for logs; info(true) adds payload, options and outcome", () => {
    const job = jobOf({
      kwargs: { a: 1 },
      timeout: null,
      attempts: 1,
      queued: 5,
      retryBackoff: true,
      status: "failed",
      error: "no\nway",
      workerId: "w",
      meta: { m: [1] },
    });
    expect(job.info()).toBe("Job<function: f, queue: q, key: k, attempts: 1, queued: 5, worker_id: w>");
    expect(job.info(true)).toBe(
      'Job<function: f, kwargs: {"a":1}, queue: q, key: k, timeout: null, retry_backoff: true, attempts: 1, queued: 5, ' +
        'error: no\nway, meta: {"m":[1]}, worker_id: w, status: failed>',
    );
    expect(jobOf({}).info(true)).toBe("Job<function: f, queue: q, key: k>");
  });
});
