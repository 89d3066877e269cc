/**
 * A Python worker's side of the table: the statements that SAQ 0.26.3 sends, in its order. Like SAQ, it writes the
 * whole document from its own copy. It is the other half of a mixed fleet where no Python is installed.
 */
import type pg from "pg";
import { rowOf, type TestDatabase } from "./scenario.js";

type Document = Record<string, unknown> & { key: string; attempts?: number; scheduled?: number };

export class PythonPeer {
  constructor(
    readonly queueName: string,
    private readonly client: pg.Client,
    private readonly workerId = "9f0e5c56-c6f1-11f0-8de9-0242ac120002",
  ) {}

  /** `Queue._enqueue`, for a job that is due now. Returns null if the key is taken. */
  async enqueue(name: string, key: string, kwargs: object = {}): Promise<Document | null> {
    const job = { function: name, kwargs, queue: this.queueName, key, queued: Date.now(), status: "queued" };
    const { rowCount } = await this.client.query(
      `INSERT INTO saq_jobs (key, job, queue, status, priority, group_key, scheduled)
       VALUES ($1, $2, $3, 'queued', 0, NULL, $4)
       ON CONFLICT (key) DO UPDATE
       SET job = $2, queue = $3, status = 'queued', priority = 0, group_key = NULL, scheduled = $4, expire_at = null
       WHERE saq_jobs.status IN ('aborted', 'complete', 'failed') AND $4 > saq_jobs.scheduled
       RETURNING 1`,
      [key, Buffer.from(JSON.stringify(job)), this.queueName, Math.floor(Date.now() / 1000)],
    );
    if (!rowCount) return null;
    await this.client.query(`NOTIFY "saq:${this.queueName}", 'saq:enqueue'`);
    return job;
  }

  /** `Queue._dequeue`: the rows become active, then each document is written, in one transaction. */
  async dequeue(limit: number): Promise<Document[]> {
    await this.client.query("BEGIN");
    const { rows } = await this.client.query<{ job: Buffer }>(
      `WITH locked_job AS (
         SELECT key FROM saq_jobs
         WHERE status = 'queued' AND queue = $1 AND $2::float8 >= scheduled AND priority BETWEEN 0 AND 32767
           AND group_key NOT IN (
             SELECT DISTINCT group_key FROM saq_jobs
             WHERE status = 'active' AND queue = $1 AND group_key IS NOT NULL)
         ORDER BY priority, scheduled LIMIT $3 FOR UPDATE SKIP LOCKED)
       UPDATE saq_jobs SET status = 'active' FROM locked_job WHERE saq_jobs.key = locked_job.key RETURNING job`,
      [this.queueName, Date.now() / 1000, limit],
    );
    const jobs = rows.map(({ job }) => JSON.parse(job.toString()) as Document);
    for (const job of jobs) await this.update(job, "active", { started: Date.now() });
    await this.client.query("COMMIT");
    return jobs;
  }

  /** What `Worker.process` writes before it calls the task. */
  start(job: Document): Promise<void> {
    const attempts = (job.attempts ?? 0) + 1;
    return this.update(job, "active", { started: Date.now(), attempts, worker_id: this.workerId });
  }

  finish(job: Document, status: "complete" | "failed" | "aborted", outcome: object = {}): Promise<void> {
    return this.update(job, status, { completed: Date.now(), ...outcome }, 600);
  }

  /** `Queue.retry`, as a sweep calls it. */
  async requeue(job: Document, error: string): Promise<void> {
    delete job.started;
    await this.update(job, "queued", { error, scheduled: job.scheduled ?? Math.floor(Date.now() / 1000) });
  }

  /** `Queue.job`. */
  async job(database: TestDatabase, key: string): Promise<Document> {
    return JSON.parse((await rowOf(database, key))?.text ?? "") as Document;
  }

  /** `Queue._update`: writes the whole document, by key alone. `lock_key` is not changed. */
  async update(job: Document, status: string, change: object = {}, ttl?: number): Promise<void> {
    Object.assign(job, { touched: Date.now(), ...change, status });
    await this.client.query(
      `UPDATE saq_jobs SET job = $1, status = $2, scheduled = $3 ${ttl ? ", expire_at = $5" : ""} WHERE key = $4`,
      [
        Buffer.from(JSON.stringify(job)),
        status,
        Math.floor(job.scheduled ?? 0),
        job.key,
        ...(ttl ? [Math.round(Date.now() / 1000) + ttl] : []),
      ],
    );
  }
}
