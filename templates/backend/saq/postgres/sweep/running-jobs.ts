/**
 * What a sweeper must know about the running jobs: their limits and their workers. `list` finds the jobs by the index
 * of running rows, without their documents. The server reads the documents and returns only the members that are
 * needed. Apart from a limited number of new jobs, only documents of jobs that the previous call found too are
 * read, because most jobs have ended by then. When each call read every document, 100 jobs of 1 MB took 105 to 261 MB
 * in this process and blocked it for 1.4 s.
 */

import { type isStuck, type JobFields, parseStatus } from "../../core/job.js";
import type { StoredJob } from "../../core/stored-job.js";
import { read } from "../../core/stored-job.js";
import type { Row } from "../raw-rows.js";
import type { RowStore } from "../rows.js";
import type { TableSession } from "../table-session.js";

const pageSize = 5_000;
/** Maximum number of documents that one statement reads, and of their bytes in all. */
const readBatchSize = 500;
const maxReadBytes = 4 * 1024 * 1024;
/** Maximum number of documents that one call of `list` reads of jobs that the previous call did not find. */
const maxNewReads = 1_000;
/** A document is read again after this time: others may have taken the job over, or changed its limits. */
const staleMs = 60_000;

/** The members of a job that decide whether it is stuck or orphaned. */
type Limits = Pick<JobFields, "timeout" | "heartbeat" | "started" | "touched" | "attempts" | "workerId">;

export interface RunningJob {
  readonly key: string;
  readonly token: number;
  readonly status: StoredJob["status"];
  /** Null when the document is no job; undefined until the document is read. */
  limits: Limits | null | undefined;
  /** When the document was read, by performance.now(), which is close to 0 in a young process. */
  readAt: number;
}

export class RunningJobs {
  #known = new Map<string, RunningJob>();

  constructor(
    private readonly session: TableSession,
    private readonly rows: RowStore,
    private readonly queueName: string,
  ) {}

  forgetAll(): void {
    this.#known.clear();
  }

  /** Returns the running jobs whose documents have been read, and the database's clock, epoch ms. */
  async list(): Promise<{ jobs: RunningJob[]; clock: number }> {
    const { found, clock } = await this.#listKeys();
    const previousJobs = this.#known;
    this.#known = new Map(found.map((job) => [job.key, job]));
    const unknown: RunningJob[] = [];
    const stale: RunningJob[] = [];
    const now = performance.now();
    for (const job of found) {
      const previous = previousJobs.get(job.key);
      const isSame = previous?.token === job.token;
      if (isSame) Object.assign(job, { limits: previous.limits, readAt: previous.readAt });
      if (!isSame) unknown.push(job);
      else if (now - job.readAt > staleMs) stale.push(job);
    }
    await this.read([...unknown.slice(0, maxNewReads)], 1);
    await this.read(stale);
    return { jobs: found.filter(({ limits }) => limits !== undefined), clock };
  }

  /** Returns the jobs that are stuck by the limits read last, and those whose document is no job. */
  stuck(
    jobs: readonly RunningJob[],
    isStuckNow: (job: RunningJob, limits: Parameters<typeof isStuck>[0]) => boolean,
  ): RunningJob[] {
    return jobs.filter(
      (job) => job.limits === null || (job.limits && isStuckNow(job, { ...job.limits, status: job.status })),
    );
  }

  /**
   * Reads the limits of these jobs. Sends at most `statements` statements for each 500 jobs, so that bytes are bounded.
   */
  async read(jobs: readonly RunningJob[], statements = Number.POSITIVE_INFINITY): Promise<void> {
    for (let at = 0; at < jobs.length; at += readBatchSize) {
      let left = jobs.slice(at, at + readBatchSize);
      for (let sent = 0; left.length > 0 && sent < statements; sent++) left = await this.#readBatch(left);
    }
  }

  /** Reads one statement's worth of limits. Returns the jobs that are left because the documents are too many bytes. */
  async #readBatch(jobs: RunningJob[]): Promise<RunningJob[]> {
    const rows = await this.session.pool.query<{
      key: string;
      queue: string;
      token: number;
      document: string | null;
    }>(this.session.statements.limits, [this.queueName, jobs.map(({ key }) => key), maxReadBytes]);
    const rowOf = new Map(rows.map((row) => [row.key, row]));
    const left: RunningJob[] = [];
    const unreadable: RunningJob[] = [];
    const now = performance.now();
    const last = rows.at(-1)?.key;
    let isAfterLast = false;
    for (const job of jobs) {
      const row = rowOf.get(job.key);
      if (isAfterLast) left.push(job);
      else if (row?.token === job.token) {
        job.readAt = now;
        if (row.document === null) unreadable.push(job);
        else job.limits = limitsOf({ ...job, queue: row.queue, scheduled: 0, document: row.document });
      }
      if (job.key === last) isAfterLast = true;
    }
    for (const job of unreadable) {
      // The server cannot read this document as a job. Fetch such documents one at a time, because each may be large.
      const [row] = await this.rows.fetch([job.key]);
      if (row?.token === job.token) job.limits = limitsOf(row);
    }
    return rows.length > 0 ? left : [];
  }

  async #listKeys(): Promise<{ found: RunningJob[]; clock: number }> {
    const found: RunningJob[] = [];
    let clock = 0;
    let last: { token: number; key: string } | undefined = { token: -(2 ** 31), key: "" };
    while (last) {
      const values: unknown[] = [this.queueName, last.token, last.key, pageSize];
      const rows: { key: string; token: number; status: string; clock: number }[] =
        await this.session.pool.query(this.session.statements.running, values);
      for (const { key, token, status } of rows) {
        const unread = { limits: undefined, readAt: Number.NEGATIVE_INFINITY };
        found.push({ key, token, status: parseStatus(status) ?? "active", ...unread });
      }
      clock = rows[0]?.clock ?? clock;
      last = rows.length === pageSize ? rows.at(-1) : undefined;
    }
    return { found, clock };
  }
}

function limitsOf(row: Row): Limits | null {
  const job = read(row);
  if (!job) return null;
  const { timeout, heartbeat, started, touched, attempts, workerId } = job;
  return { timeout, heartbeat, started, touched, attempts, workerId };
}

/**
 * Returns true if the row is still in the run that `then` describes. The token alone does not tell: Python starts a job
 * again without changing the token, but never without changing the document.
 */
export function isSameRun(now: Row, then: RunningJob): boolean {
  if (now.token !== then.token || (now.status !== "active" && now.status !== "aborting")) return false;
  const job = read(now);
  const { limits } = then;
  return job === null || !limits
    ? job === null && !limits
    : job.workerId === limits.workerId && job.attempts === limits.attempts && job.started === limits.started;
}
