/** Lists and counts jobs, for people to read, by the lists and sets that their ids are in. */
import type { JobCounts, JobFilter } from "../broker.js";
import type { Status, TerminalStatus } from "../core/job.js";
import { isSelected, needsLook } from "../core/job-selection.js";
import type { StoredJob } from "../core/stored-job.js";
import { SaqError } from "../errors.js";
import type { RedisConnection } from "./connection.js";
import type { JobStore } from "./jobs.js";
import type { QueueKeys } from "./keys.js";

/** Timeout of a list of jobs whose documents are looked into, s. */
const timeoutSeconds = 5;
/** How many documents are looked into at a time. */
const batchSize = 200;
/** Maximum bytes of the documents of a list whose jobs were looked into. Later jobs come without a document. */
const maxListedBytes = 64 * 1024 * 1024;

/** A list or set of ids, the newest first. */
interface Source {
  /** The status of its jobs, as far as only the list knows it. */
  readonly status: Status;
  size(): Promise<number>;
  ids(start: number, count: number): Promise<string[]>;
}

export class JobLists {
  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
    private readonly queueName: string,
    private readonly jobs: JobStore,
  ) {}

  async counts(): Promise<JobCounts> {
    const { keys, connection } = this;
    const now = connection.clock.now();
    const seconds = Math.floor(now / 1_000);
    const count = async (args: readonly string[]) => Number(await connection.command(args));
    const finished = (status: "complete" | "failed" | "aborted") =>
      count(["ZCOUNT", keys.finished(status), `(${Math.floor(now)}`, "+inf"]);
    const [queued, due, scheduled, active, claims, complete, failed, aborted] = await Promise.all([
      count(["LLEN", keys.queued]),
      count(["ZCOUNT", keys.incomplete, "(0", String(seconds)]),
      count(["ZCOUNT", keys.incomplete, `(${seconds}`, "+inf"]),
      count(["LLEN", keys.active]),
      count(["HLEN", keys.claims]),
      finished("complete"),
      finished("failed"),
      finished("aborted"),
    ]);
    // A job that is being aborted is in no list, but keeps its claim.
    const aborting = Math.max(claims - active, 0);
    return { queued: queued + due, scheduled, active, aborting, complete, failed, aborted };
  }

  /**
   * Lists jobs by the lists and sets of their statuses: waiting jobs first, then running and finished ones, each with
   * the newest first.
   */
  async list(filter: JobFilter): Promise<StoredJob[]> {
    const wanted = new Set(filter.statuses);
    const { due, limit } = filter;
    if (needsLook(filter)) return this.#search(this.#sources(wanted, due), filter);
    const found: StoredJob[] = [];
    let skip = filter.offset;
    for (const source of this.#sources(wanted, due)) {
      if (found.length >= limit) break;
      const size = await source.size();
      if (skip >= size) {
        skip -= size;
        continue;
      }
      const ids = await source.ids(skip, limit - found.length);
      skip = 0;
      const jobKeys = ids.map((id) => this.keys.jobKey(id));
      for (const job of await this.jobs.fetch(jobKeys, this.jobs.maxDocumentBytes)) {
        // The status of a document that was not read is known by the list only.
        if (job?.unreadBytes !== undefined) found.push({ ...job, status: source.status });
        else if (job && wanted.has(job.status)) found.push(job);
      }
    }
    return found;
  }

  /**
   * Looks into the documents of all jobs with these statuses, some hundred at a time.
   *
   * @throws SaqError list_too_slow after 5 s
   */
  async #search(sources: readonly Source[], filter: JobFilter): Promise<StoredJob[]> {
    const deadline = performance.now() + timeoutSeconds * 1_000;
    const found: StoredJob[] = [];
    let skipped = 0;
    let bytes = 0;
    for (const source of sources) {
      for (let start = 0, isOver = false; !isOver; start += batchSize) {
        const ids = await source.ids(start, batchSize);
        isOver = ids.length < batchSize;
        for (let remaining = ids.map((id) => this.keys.jobKey(id)); remaining.length > 0; ) {
          const jobs = await this.#fetchFirst(remaining);
          remaining = remaining.slice(jobs.length);
          for (const stored of jobs) {
            // The status of a document that was not read is known by the list only.
            const job = stored?.unreadBytes === undefined ? stored : { ...stored, status: source.status };
            if (!job || !isSelected(job, filter, this.connection.clock.now())) continue;
            if (skipped++ < filter.offset) continue;
            const documentBytes = Buffer.byteLength(job.document);
            bytes += documentBytes;
            found.push(bytes <= maxListedBytes ? job : { ...job, document: "", unreadBytes: documentBytes });
            if (found.length >= filter.limit) return found;
          }
          if (performance.now() > deadline) throw this.#tooSlow();
        }
      }
    }
    return found;
  }

  /** Returns the first jobs: as many as have documents that together are not too many bytes, and at least one. */
  async #fetchFirst(jobKeys: readonly string[]): Promise<(StoredJob | null)[]> {
    const { maxDocumentBytes } = this.jobs;
    const jobs = await this.jobs.fetch(jobKeys, maxDocumentBytes);
    const end = jobs.findIndex((job) => job?.unreadBytes !== undefined && job.unreadBytes <= maxDocumentBytes);
    return end < 0 ? jobs : jobs.slice(0, Math.max(end, 1));
  }

  #tooSlow(): SaqError {
    return new SaqError(
      "list_too_slow",
      `The list of jobs in queue "${this.queueName}" was cancelled after ${timeoutSeconds} s, because the ` +
        "documents of too many jobs had to be looked into. Ask for fewer statuses or a lower offset, or read all " +
        "jobs with queue.iterJobs",
    );
  }

  #sources(wanted: ReadonlySet<Status>, due: boolean | undefined): Source[] {
    const { keys, connection } = this;
    const ids = async (args: readonly string[]) => (await connection.command(args)) as string[];
    const size = async (args: readonly string[]) => Number(await connection.command(args));
    const seconds = String(Math.floor(connection.clock.now() / 1_000));
    const list = (status: Status, key: string) => ({
      status,
      size: () => size(["LLEN", key]),
      // The newest jobs are at the end of the list.
      ids: async (start: number, count: number) =>
        (await ids(["LRANGE", key, String(-start - count), String(-start - 1)])).reverse(),
    });
    const scores = (key: string, min: string, max: string) => ({
      status: "queued" as const,
      size: () => size(["ZCOUNT", key, min, max]),
      ids: (start: number, count: number) =>
        ids(["ZREVRANGEBYSCORE", key, max, min, "LIMIT", String(start), String(count)]),
    });
    const newestFirst = (status: TerminalStatus, key = keys.finished(status)) => ({
      status,
      size: () => size(["ZCOUNT", key, `(${Math.floor(connection.clock.now())}`, "+inf"]),
      ids: (start: number, count: number) =>
        ids(["ZREVRANGEBYSCORE", key, "+inf", "0", "LIMIT", String(start), String(count)]),
    });
    const sources: Source[] = [];
    if (wanted.has("queued") && wanted.has("active") && due !== false) {
      // One set has both. A job that moves from one list to the other while both are read would be missed.
      sources.push(scores(keys.incomplete, "0", seconds));
      if (due === undefined) sources.push(scores(keys.incomplete, `(${seconds}`, "+inf"));
    } else if (wanted.has("queued")) {
      if (due !== false) sources.push(list("queued", keys.queued), scores(keys.incomplete, "(0", seconds));
      if (due !== true) sources.push(scores(keys.incomplete, `(${seconds}`, "+inf"));
    }
    if (wanted.has("active") && (!wanted.has("queued") || due === false))
      sources.push(list("active", keys.active));
    if (wanted.has("aborting")) {
      const aborting = async () => {
        const claims = await ids(["HKEYS", keys.claims]);
        const active = new Set(await ids(["LRANGE", keys.active, "0", "-1"]));
        return claims.filter((id) => !active.has(id));
      };
      sources.push({
        status: "aborting" as const,
        size: async () => (await aborting()).length,
        ids: async (start: number, count: number) => (await aborting()).slice(start, start + count),
      });
    }
    for (const status of ["failed", "aborted", "complete"] as const)
      if (wanted.has(status)) sources.push(newestFirst(status));
    return sources;
  }

  /** Returns jobs page by page, in no order; a job may come twice. `next` is null after the last page. */
  async scan(
    statuses: readonly Status[],
    after: string,
    limit: number,
  ): Promise<{ jobs: StoredJob[]; next: string | null }> {
    const { connection, keys } = this;
    const { moves } = connection;
    // Another server does not know the cursor, so the scan begins again.
    const [scanned = "", cursor = "0"] = after.split(" ");
    const [next, ids] = (await connection.command([
      "SCAN",
      scanned === String(moves) ? cursor : "0",
      "MATCH",
      keys.idPattern,
      "COUNT",
      String(limit),
      "TYPE",
      "string",
    ])) as [string, string[]];
    // SCAN names no key, so a node of a cluster that does not own the keys any more does not say so.
    if (connection.isCluster) await connection.command(["EXISTS", keys.queued]);
    const jobs = ids.length === 0 ? [] : await this.jobs.fetch(ids.map((id) => keys.jobKey(id)));
    const isOver = next === "0" && moves === connection.moves;
    return {
      jobs: jobs.flatMap((job) => (job && statuses.includes(job.status) ? [job] : [])),
      next: isOver ? null : `${moves} ${next}`,
    };
  }
}
