/** Reads the jobs and workers of a queue; changes nothing. */

import type { Broker, JobFilter } from "../broker.js";
import { type JobFields, jobDefaults, type Status, statuses } from "../core/job.js";
import type { StoredJob } from "../core/stored-job.js";
import { read } from "../core/stored-job.js";
import { InvalidJobError, JobGoneError, SaqError } from "../errors.js";
import { checkConditions } from "./job-conditions.js";
import type { Job } from "./job-handle.js";
import { readEnd, unreadReason } from "./results.js";
import type { QueueInfo } from "./types.js";

export class JobReader {
  constructor(
    private readonly queueName: string,
    private readonly broker: Broker,
    private readonly toJob: (fields: JobFields) => Job,
  ) {}

  /** @throws JobGoneError, PoisonDocumentError */
  async reload(key: string): Promise<JobFields> {
    const [row] = await this.broker.jobs([key]);
    if (!row) throw new JobGoneError(key);
    return readEnd(row);
  }

  async jobs(keys: readonly string[]): Promise<(Job | null)[]> {
    const rows = await this.broker.jobs(keys);
    return rows.map((row) => row && this.#jobOf(row));
  }

  async list({
    statuses: selected = statuses,
    offset = 0,
    limit = 50,
    ...conditions
  }: Partial<JobFilter>): Promise<Job[]> {
    checkConditions("list", conditions);
    const rows = await this.broker.list({ ...conditions, statuses: selected, offset, limit });
    const jobs = rows.map((row) => this.#jobOf(row));
    // The list is complete, so it can be sorted by time. No index has the time.
    return offset === 0 && jobs.length < limit ? jobs.sort(newestFirst) : jobs;
  }

  async *iterate({
    statuses: selected = statuses,
    batchSize = 100,
  }: {
    statuses?: readonly Status[];
    batchSize?: number;
  }): AsyncGenerator<Job, void, void> {
    if (!Number.isInteger(batchSize) || batchSize < 1) {
      throw new InvalidJobError(`iterJobs: batchSize must be a whole number >= 1, got ${String(batchSize)}`);
    }
    let after: string | null = "";
    while (after !== null) {
      const request = { statuses: selected, after, limit: batchSize };
      const page: Awaited<ReturnType<Broker["listAfter"]>> = await this.broker.listAfter(request);
      for (const row of page.jobs) yield this.#jobOf(row);
      after = page.next;
    }
  }

  async count(kind: "queued" | "active" | "incomplete"): Promise<number> {
    const { queued, active, scheduled } = await this.broker.counts();
    switch (kind) {
      case "queued":
        return queued;
      case "active":
        return active;
      case "incomplete":
        return queued + scheduled + active;
      default:
        throw new SaqError(
          "config",
          `count takes "queued", "active" or "incomplete", got "${kind satisfies never}"`,
        );
    }
  }

  async info({
    jobs = false,
    statuses: selected = ["queued", "active", "aborting"],
    offset = 0,
    limit = 100,
    ...conditions
  }: Partial<JobFilter> & { jobs?: boolean }): Promise<QueueInfo> {
    const [counts, workers, listed] = await Promise.all([
      this.broker.counts(),
      this.broker.workers(),
      jobs ? this.list({ ...conditions, statuses: selected, offset, limit }) : [],
    ]);
    return {
      name: this.queueName,
      queued: counts.queued,
      active: counts.active,
      scheduled: counts.scheduled,
      counts,
      workers: Object.fromEntries(
        workers.map(({ workerId, stats, metadata, queueKey }) => [
          workerId,
          { stats, metadata, queue_key: queueKey },
        ]),
      ),
      jobs: listed.map((job) => job.toDocument()),
    };
  }

  #jobOf(row: StoredJob): Job {
    return this.toJob(read(row) ?? unreadableFields(row));
  }
}

/** Returns what can be shown of a row with an unreadable document: its columns, and the reason why there is no more. */
function unreadableFields(row: StoredJob): JobFields {
  return {
    ...jobDefaults,
    function: "(unreadable)",
    queueName: row.queue,
    key: row.key,
    status: row.status satisfies Status,
    scheduled: row.scheduled,
    error: unreadReason(row),
    meta: {},
  };
}

/** Generated keys ascend with time, also within one millisecond. */
const newestFirst = (a: Job, b: Job): number => b.queued - a.queued || (a.key < b.key ? 1 : -1);
