/**
 * Workers of both languages on one queue (T-190 to T-194). Python's side is simulated by the statements that it sends.
 */
import { describe, expect, it } from "@jest/globals";
import type { Context } from "../../../templates/backend/saq/index.js";
import { pythonComplaints } from "../support/golden-documents.js";
import { PythonPeer } from "../support/python-peer.js";
import { openQueue, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();

describe("workers of both languages on one queue", () => {
  it("T-191: a thousand jobs from both sides run once each, and Python can load every row", async () => {
    const runs = new Map<string, string[]>();
    const ran = (key: string, side: string) => runs.set(key, [...(runs.get(key) ?? []), side]);
    const queue = openQueue(
      database,
      {
        quick: async (ctx: Context, { n }: { n: number }) => {
          ran(ctx.job.key, "ours");
          return n;
        },
      },
      // Slow enough that the peers get their share of the jobs.
      { concurrency: 2, prefetch: false },
    );
    await queue.connect();
    const peers = await Promise.all(
      [1, 2].map(async (n) => new PythonPeer(queue.name, await database.connect(), `python-${n}`)),
    );
    let isOver = false;
    const work = async (peer: PythonPeer) => {
      while (!isOver) {
        for (const job of await peer.dequeue(10)) {
          await peer.start(job);
          ran(job.key, "python's");
          await peer.finish(job, "complete", { result: (job.kwargs as { n: number }).n, progress: 1 });
        }
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    };
    const working = peers.map(work);
    await startWorker(queue);
    const enqueuer = new PythonPeer(queue.name, await database.connect());
    for (let batch = 0; batch < 10; batch++) {
      const n = (index: number) => batch * 100 + index;
      const theirs = Array.from({ length: 50 }, (_, index) => n(index));
      await queue.enqueueMany(
        theirs.map((index) => ({
          task: "quick" as const,
          payload: { n: 50 + index },
          key: `job ${50 + index}`,
        })),
      );
      for (const index of theirs) await enqueuer.enqueue("quick", `job ${index}`, { n: index });
    }
    await until(async () => (await queue.counts()).complete === 1_000);
    isOver = true;
    await Promise.all(working);

    expect(runs.size).toBe(1_000);
    expect([...runs].filter(([, sides]) => sides.length !== 1)).toEqual([]);
    expect(new Set([...runs.values()].flat())).toEqual(new Set(["ours", "python's"]));
    const rows = await database.query<{ text: string; n: number; result: number }>(
      `select convert_from(job, 'UTF8') as text, convert_from(job, 'UTF8')::jsonb->'kwargs'->'n' as n,
         convert_from(job, 'UTF8')::jsonb->'result' as result from saq_jobs where queue = $1 and status = 'complete'`,
      [queue.name],
    );
    expect(rows).toHaveLength(1_000);
    expect(rows.filter(({ n, result }) => n !== result)).toEqual([]);
    expect(rows.flatMap(({ text }) => pythonComplaints(text, queue.name))).toEqual([]);
  });

  it("T-190, P-21: a job that Python enqueues wakes an idle worker", async () => {
    const queue = openQueue(database, { quick: () => "done" }, { timers: { schedule: 600 } });
    const { ended } = await startWorker(queue);
    const peer = new PythonPeer(queue.name, await database.connect());
    await peer.enqueue("quick", "woken");
    expect(await ended("woken")).toMatch(/^Finished/);
  });

  it("T-194: info() returns Python's workers as Python wrote them", async () => {
    const queue = openQueue(database, { quick: () => "done" });
    await queue.connect();
    // psycopg passes JSON null for absent metadata.
    await database.query(
      `insert into saq_stats (worker_id, stats, queue_key, metadata, expire_at) values ('python-1',
         '{"complete": 3, "failed": 1, "retried": 0, "aborted": 0, "uptime": 11}', $1, 'null',
         extract(epoch from now()) + 11)`,
      [queue.name],
    );
    const { workers } = await queue.info();
    expect(workers).toEqual({
      "python-1": {
        stats: { complete: 3, failed: 1, retried: 0, aborted: 0, uptime: 11 },
        metadata: null,
        queue_key: queue.name,
      },
    });
  });

  it("T-194, P-34: our worker rows have the form that Python reads", async () => {
    const queue = openQueue(database, { quick: () => "done" }, { metadata: { region: "eu" } });
    const { worker } = await startWorker(queue);
    // The statement of Python's `info`.
    const rows = await database.query(
      `SELECT worker_id, stats, queue_key, metadata FROM saq_stats
       WHERE expire_at >= EXTRACT(EPOCH FROM NOW()) AND queue_key = $1`,
      [queue.name],
    );
    expect(rows).toEqual([
      {
        worker_id: worker.workerId,
        stats: {
          complete: 0,
          failed: 0,
          retried: 0,
          aborted: 0,
          uptime: expect.any(Number),
          graceSeconds: 11,
        },
        queue_key: queue.name,
        metadata: { region: "eu" },
      },
    ]);
  });
});
