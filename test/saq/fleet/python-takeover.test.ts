/**
 * A Python worker takes over a job of ours: its sweeper returns the job to the queue and its claim starts the job
 * again. Neither changes `lock_key`, so the row still has our token (D-20, T-193). The test writes with the statements
 * that SAQ 0.26.3 sends.
 */

import { describe, expect, it, jest } from "@jest/globals";
import type { ClaimedJob } from "../../../templates/backend/saq/core/claim.js";
import { receiptOf } from "../../../templates/backend/saq/postgres/receipt.js";
import { PythonPeer } from "../support/python-peer.js";
import {
  claim,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  useDatabase,
} from "../support/scenario.js";

const database = useDatabase();
const tasks = { ok: (_ctx: unknown, payload: { text?: string }) => payload.text ?? null };
const open = () => openQueue(database, tasks, { defaults: { retries: 3, timeout: 60 } });
type OpenQueue = ReturnType<typeof open>;

/** Creates Python's side, with a connection of its own. */
const peerOf = async (queue: OpenQueue | { name: string }) =>
  new PythonPeer(queue.name, await database.connect());

/** A Python worker sweeps, claims and starts the job. Returns that worker. */
async function takeOver(queue: { name: string }, key: string): Promise<PythonPeer> {
  const peer = await peerOf(queue);
  await peer.requeue(await peer.job(database, key), "swept");
  for (const job of await peer.dequeue(10)) await peer.start(job);
  expect(await rowOf(database, key)).toMatchObject({ status: "active" });
  return peer;
}

async function claimOne(queue: OpenQueue, text?: string, options: object = {}): Promise<ClaimedJob> {
  await queue.enqueue("ok", { text }, options);
  const [claimed] = await claim(queue);
  if (!claimed) throw new Error("nothing was claimed");
  return claimed;
}

describe("a job that a Python worker took over", () => {
  it.each([
    ["a document that jsonb can hold", undefined],
    // jsonb holds no NUL, so these documents are written one by one.
    ["a document that jsonb cannot hold", "\0"],
  ])("D-20, T-193: the settlement of our run is refused: %s", async (_, text) => {
    const queue = open();
    for (const status of ["complete", "failed", "aborted", "queued"] as const) {
      const claimed = await claimOne(queue, text);
      await takeOver(queue, claimed.key);
      const before = await rowOf(database, claimed.key);
      expect(before?.lock_key).toBe(receiptOf(claimed).token);

      expect(await settle(queue, settlement(claimed, status, { result: "late" }))).toBe("lost");
      expect(await rowOf(database, claimed.key)).toEqual(before);
    }
  });

  it("D-20, T-193: our settlement is refused after Python's run ended with the same status", async () => {
    const queue = open();
    const claimed = await claimOne(queue);
    const peer = await takeOver(queue, claimed.key);
    await peer.finish(await peer.job(database, claimed.key), "complete", { result: "python's" });
    expect(await settle(queue, settlement(claimed, "complete", { result: "late" }))).toBe("lost");
    expect((await queue.job(claimed.key))?.result).toBe("python's");
  });

  it("D-20, T-193: our settlement is refused while the job is being aborted", async () => {
    const queue = open();
    const claimed = await claimOne(queue);
    await takeOver(queue, claimed.key);
    await queue.abort(claimed.key, "enough");
    expect(await settle(queue, settlement(claimed, "complete"))).toBe("lost");
    expect((await rowOf(database, claimed.key))?.status).toBe("aborting");
  });

  it.each([
    ["a document that jsonb can hold", undefined],
    ["a document that jsonb cannot hold", "\0"],
  ])("D-21, T-193: our progress is refused: %s", async (_, text) => {
    const queue = open();
    const claimed = await claimOne(queue, text);
    await takeOver(queue, claimed.key);
    const before = await rowOf(database, claimed.key);
    expect(await queue.broker.heartbeat([{ ...claimed, patch: '{"progress": 0.5}', removed: [] }])).toEqual([
      false,
    ]);
    expect(await rowOf(database, claimed.key)).toEqual(before);
  });

  it("D-24, T-193: our run loses a job that Python's sweeper requeued, even before the next run starts", async () => {
    const queue = open();
    for (const status of ["complete", "queued"] as const) {
      const claimed = await claimOne(queue);
      const peer = await peerOf(queue);
      await peer.requeue(await peer.job(database, claimed.key), "swept");
      const before = await rowOf(database, claimed.key);
      expect(await queue.broker.findInterrupted([claimed])).toEqual([{ key: claimed.key, reason: "lost" }]);
      expect(await settle(queue, settlement(claimed, status))).toBe("lost");
      expect(await rowOf(database, claimed.key)).toEqual(before);
    }
  });

  it("T-193: findInterrupted() reports our run as lost", async () => {
    const queue = open();
    const claimed = await claimOne(queue);
    const other = await claimOne(queue);
    expect(await queue.broker.findInterrupted([claimed, other])).toEqual([]);
    await takeOver(queue, claimed.key);
    expect(await queue.broker.findInterrupted([claimed, other])).toEqual([
      { key: claimed.key, reason: "lost" },
    ]);
  });

  it("T-193: findInterrupted() reports our run as lost, also if the job has failed before in our worker", async () => {
    const queue = open();
    const attemptHistory = [{ time: 1, attempt: 1, workerId: "worker-1", duration: 1, error: "boom" }];
    const claimed = await claimOne(queue, undefined, { meta: { attemptHistory } });
    expect(await queue.broker.findInterrupted([claimed])).toEqual([]);
    await takeOver(queue, claimed.key);
    expect((await queue.job(claimed.key))?.history).toEqual(attemptHistory);
    expect(await queue.broker.findInterrupted([claimed])).toEqual([{ key: claimed.key, reason: "lost" }]);
  });

  it("T-193: the task's signal fires, and our worker does not run the job twice at the same time", async () => {
    let signal: AbortSignal | undefined;
    let begun = () => {};
    const running = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const queue = openQueue(
      database,
      {
        wait: (ctx: { signal: AbortSignal }) => {
          signal = ctx.signal;
          begun();
          return new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
        },
      },
      { timers: { abort: 0.1 }, defaults: { timeout: 60 }, concurrency: 1 },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("wait", undefined);
    await running;
    // Our worker must not claim the job before Python does.
    jest.spyOn(queue.broker, "claim").mockResolvedValue({ jobs: [], more: false });
    await takeOver(queue, job.id);
    expect(await ended(job.id)).toMatch(/^lost the job/);
    expect(signal?.reason).toMatchObject({ name: "LostError" });
    expect(await queue.job(job.id)).toMatchObject({
      status: "active",
      workerId: expect.not.stringMatching(/^ts-/),
      attempts: 2,
    });
  });
});

describe("a job whose document an old Python job object overwrote", () => {
  /**
   * Writes what an `update` or `abort` through the job object of the enqueue leaves: no attempts, no start, no worker
   * (D-21).
   */
  async function throughOldHandle(queue: OpenQueue, key: string, status: string, change: object = {}) {
    const peer = await peerOf(queue);
    const { attempts, started, worker_id, ...asEnqueued } = await peer.job(database, key);
    expect([attempts, started, worker_id]).not.toContain(undefined);
    await peer.update(asEnqueued, status, change);
  }

  it("D-21: still belongs to our run, whose settlement is recorded", async () => {
    const queue = open();
    const claimed = await claimOne(queue);
    await throughOldHandle(queue, claimed.key, "active");
    expect(await queue.broker.findInterrupted([claimed])).toEqual([]);
    expect(await queue.broker.heartbeat([{ ...claimed, patch: '{"progress": 0.5}', removed: [] }])).toEqual([
      true,
    ]);
    expect(await settle(queue, settlement(claimed, "complete", { result: 1 }))).toBe("applied");
    expect(await queue.job(claimed.key)).toMatchObject({ status: "complete", result: 1 });
  });

  it("D-21, T-193: is aborted in our run if the abort came through that Python job object", async () => {
    const queue = open();
    const claimed = await claimOne(queue);
    await throughOldHandle(queue, claimed.key, "aborting", { error: "from python" });
    expect(await queue.broker.findInterrupted([claimed])).toEqual([{ key: claimed.key, reason: "abort" }]);
    expect(await settle(queue, settlement(claimed, "complete"))).toBe("aborted");
    expect(await queue.job(claimed.key)).toMatchObject({ status: "aborted", error: "from python" });
  });
});
