/** Workers that run the jobs that are there and then stop by themselves (W-2, W-18). */
import { describe, expect, it } from "@jest/globals";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { openQueue, rowOf, startWorker, useDatabase } from "../support/scenario.js";
import { itNeeds } from "../support/test-broker.js";

const database = useDatabase();

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

describe("a burst", () => {
  it.each([
    ["T-67: with notifications", 0],
    ["T-68: with polling", 0.1],
  ])("%s, it ends by itself when no job is left, and can run again (W-5)", async (_, pollInterval) => {
    const queue = openQueue(
      database,
      { given: (_ctx: Context, { n }: { n: number }) => n },
      { burst: true, dequeueTimeout: 0.3, pollInterval },
    );
    const jobs = await queue.enqueueMany(
      Array.from({ length: 25 }, (_, n) => ({ task: "given" as const, payload: { n } })),
    );
    const { worker, log } = await startWorker(queue);
    await worker.finished;
    const done = await queue.jobs(jobs.map((job) => String(job?.key)));
    expect(done.map((job) => job?.result)).toEqual(Array.from({ length: 25 }, (_, n) => n));
    expect(log.lines.at(-1)).toMatchObject({ message: "Worker stopped", fields: { complete: 25 } });
    expect(await queue.workers()).toEqual([]);
    const later = await queue.enqueue("given", { n: 26 });
    await worker.start();
    await worker.finished;
    expect((await later.refresh()).status).toBe("complete");
  });

  it("T-69: ends after maxBurstJobs jobs and leaves the other jobs queued", async () => {
    const queue = openQueue(
      database,
      { given: () => 1 },
      { burst: true, dequeueTimeout: 5, maxBurstJobs: 2, concurrency: 5 },
    );
    expect(queue.config.concurrency).toBe(2);
    await queue.enqueueMany(Array.from({ length: 5 }, () => ({ task: "given" as const })));
    const { worker } = await startWorker(queue);
    await worker.finished;
    expect(await queue.counts()).toMatchObject({ complete: 2, queued: 3, active: 0 });
  });

  it("D-50: does not end when a job is aborted or fails", async () => {
    const queue = openQueue(
      database,
      {
        wait: async ({ signal, job }: Context) => {
          await queue.abort(job.key);
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
        bad: () => {
          throw new Error("no");
        },
        good: () => "well",
      },
      { burst: true, dequeueTimeout: 0.3, concurrency: 1 },
    );
    const first = await queue.enqueue("wait");
    const second = await queue.enqueue("bad");
    const third = await queue.enqueue("good");
    const { worker } = await startWorker(queue);
    await worker.finished;
    const statuses = await queue.jobs([first.key, second.key, third.key]);
    expect(statuses.map((job) => job?.status)).toEqual(["aborted", "failed", "complete"]);
  });

  itNeeds(
    "priorities",
    "D-8: keeps its deadline when it is woken for jobs that it does not claim",
    async () => {
      const queue = openQueue(database, { given: () => 1 }, { burst: true, dequeueTimeout: 1 });
      let claims = 0;
      const claim = queue.broker.claim.bind(queue.broker);
      queue.broker.claim = (request) => {
        claims++;
        return claim(request);
      };
      const began = performance.now();
      const { worker } = await startWorker(queue);
      const claimsAtStart = claims;
      let tookMs = 0;
      void worker.finished.then(() => {
        tookMs = performance.now() - began;
      });
      // Parked jobs are due and wake the worker, but it does not claim them (P-14).
      let parked = 0;
      while (tookMs === 0 && performance.now() - began < 30_000) {
        await queue.enqueue("given", undefined, { priority: -1 });
        parked++;
        await pause(50);
      }
      expect(tookMs).toBeGreaterThanOrEqual(1_000);
      // The tick alone would look once in this time.
      expect(claims - claimsAtStart).toBeGreaterThan(3);
      expect(await queue.counts()).toMatchObject({ queued: parked, complete: 0 });
    },
  );

  it("W-18: a job that runs for longer than dequeueTimeout still completes", async () => {
    const queue = openQueue(
      database,
      { slow: (_ctx: Context) => pause(900) },
      { burst: true, dequeueTimeout: 0.2, concurrency: 2 },
    );
    const job = await queue.enqueue("slow");
    const { worker } = await startWorker(queue);
    await worker.finished;
    expect((await rowOf(database, job.key))?.status).toBe("complete");
  });

  it("W-18: runs a job that arrives within dequeueTimeout, and then waits the full dequeueTimeout again", async () => {
    const queue = openQueue(database, { given: () => 1 }, { burst: true, dequeueTimeout: 2 });
    const { worker, ended } = await startWorker(queue);
    let isOver = false;
    void worker.finished.then(() => {
      isOver = true;
    });
    for (let n = 0; n < 3; n++) {
      await pause(700);
      await ended((await queue.enqueue("given")).key);
      expect(isOver).toBe(false);
    }
    await worker.finished;
  });
});
