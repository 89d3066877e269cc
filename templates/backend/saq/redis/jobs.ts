/** Reads and changes single jobs. A change is written only if nobody else has changed the job since it was read. */
import { createHash } from "node:crypto";
import type { JobCounts, JobFilter } from "../broker.js";
import { backoffMs } from "../core/backoff.js";
import { maxDocumentBytes, maxReadBytes } from "../core/byte-size.js";
import { isTerminal, parseStatus, type Status, type TerminalStatus } from "../core/job.js";
import { read, type StoredJob } from "../core/stored-job.js";
import { type RowChange, unreadableChange, withDocument } from "../core/transitions.js";
import { SaqError } from "../errors.js";
import type { RedisConnection, RetryOptions } from "./connection.js";
import { eventOf, type Notification } from "./events.js";
import type { QueueKeys } from "./keys.js";
import { changeScript, fetchScript, readScript } from "./lua/change.js";
import { forgetScript } from "./lua/workers.js";

/** A job as it is stored, with what a change compares. */
export interface ReadJob extends StoredJob {
  /** Hash of the stored document. */
  readonly hash: string;
  /** Token of the claim that owns the job; "" if there is none. */
  readonly token: string;
  /** Score in the set of unfinished jobs; null if the job is not in it. */
  readonly score: number | null;
}

export interface JobDecision<T> {
  change:
    | (RowChange & {
        /** Token that owns the job after the change. If left out, an active or aborting job keeps its token. */
        token?: string;
        /** Where a job that waits is put. @defaultValue "back" */
        position?: "front" | "back";
        /**
         * The job waits by its document, but its id is in the list of running jobs: its worker ended while it claimed.
         */
        isTaken?: true;
        /** A notification of the change. @defaultValue an event for all */
        notification?: Notification | null;
      })
    | null;
  answer: T;
}

/** Decides how to change a job. `clock` is the server's clock, epoch ms. */
export type Decide<T> = (job: ReadJob, clock: number) => JobDecision<T>;

type Change = NonNullable<JobDecision<unknown>["change"]>;

/**
 * A change that was sent again, because the response was lost, and that the server did not carry out then: the job had
 * changed, perhaps by the first sending.
 */
interface Unconfirmed<T> {
  /** Hash of the document and token of the claim after the change, if it was carried out. */
  readonly hash: string;
  readonly token: string;
  /** The change deletes the document. */
  readonly isDeletion: boolean;
  readonly answer: T;
}

/** How many jobs are read and changed by one script. */
const batchSize = 200;
/** How often a change is tried while others change the same job. */
const maxTries = 20;

export class JobStore {
  /** How documents name this queue, as our own code and as Python writes it. */
  readonly #queueMembers: readonly [string, string];

  /** A larger document is not read. */
  readonly maxDocumentBytes: number;

  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
    private readonly queueName: string,
    /** Maximum size of each part of a job (payload, result, error, meta), in bytes. */
    readonly maxBytes: number,
  ) {
    this.maxDocumentBytes = maxDocumentBytes(maxBytes);
    const name = JSON.stringify(queueName);
    this.#queueMembers = [`"queue":${name}`, `"queue": ${name}`];
  }

  /**
   * Returns the jobs in the order of the keys; null for a key without a job. `maxTotalBytes` limits the documents of
   * one page together.
   */
  async fetch(
    jobKeys: readonly string[],
    maxTotalBytes = Number.MAX_SAFE_INTEGER,
  ): Promise<(StoredJob | null)[]> {
    const found: (StoredJob | null)[] = [];
    for (let start = 0; start < jobKeys.length; start += batchSize) {
      const page = jobKeys.slice(start, start + batchSize);
      const documents = (await this.connection.run(
        fetchScript,
        page.map((jobKey) => this.keys.id(jobKey)),
        [String(this.maxDocumentBytes), String(maxTotalBytes)],
      )) as (string | number)[];
      const suspects = page.filter((_, index) => mayBeDamaged(documents[index]));
      const checked = suspects.length > 0 ? await this.#readAll(suspects) : null;
      for (const [index, jobKey] of page.entries()) {
        const document = documents[index] ?? "";
        const text = checked && mayBeDamaged(document) ? checked.get(jobKey)?.document : document;
        const isMissing = document === "" || text === undefined;
        found.push(isMissing ? null : this.#stored(jobKey, text));
      }
    }
    return found;
  }

  async change<T>(jobKey: string, decide: Decide<T>, options?: RetryOptions): Promise<T | null> {
    return (await this.changeMany([jobKey], decide, options)).get(jobKey) ?? null;
  }

  /**
   * Changes jobs. A key without a job has no entry in the result.
   *
   * @throws SaqError job_held if others change a job all the time
   */
  async changeMany<T>(
    jobKeys: readonly string[],
    decide: Decide<T>,
    options?: RetryOptions,
  ): Promise<Map<string, T>> {
    const answers = new Map<string, T>();
    const unconfirmed = new Map<string, Unconfirmed<T>>();
    let remaining = [...new Set(jobKeys)];
    for (let tries = 0; remaining.length > 0; tries++) {
      if (tries === maxTries) {
        throw new SaqError(
          "job_held",
          `Job ${JSON.stringify(remaining[0])} was changed by others ${maxTries} times while this change was decided; ` +
            "nothing was changed. Try again",
        );
      }
      if (tries > 2) await this.connection.pause(backoffMs(tries) / 20);
      const conflicts: string[] = [];
      const results = { answers, unconfirmed };
      while (remaining.length > 0) {
        const page = remaining.slice(0, batchSize);
        const { conflicts: changed, deferred } = await this.#changePage(page, decide, options, results);
        conflicts.push(...changed);
        remaining = [...deferred, ...remaining.slice(batchSize)];
      }
      remaining = conflicts;
    }
    return answers;
  }

  /**
   * Returns the keys of jobs that others changed between reading and writing (`conflicts`), and of jobs that were not
   * read (`deferred`).
   */
  async #changePage<T>(
    jobKeys: readonly string[],
    decide: Decide<T>,
    options: RetryOptions | undefined,
    { answers, unconfirmed }: { answers: Map<string, T>; unconfirmed: Map<string, Unconfirmed<T>> },
  ): Promise<{ conflicts: string[]; deferred: readonly string[] }> {
    const { jobs, clock, deferred } = await this.#read(jobKeys, options);
    const changes: { job: ReadJob; change: Change; document: string | null; answer: T }[] = [];
    const found = new Set(jobs.map(({ key }) => key));
    for (const [key, { isDeletion, answer }] of unconfirmed)
      if (isDeletion && !found.has(key) && jobKeys.includes(key) && !deferred.includes(key))
        answers.set(key, answer);
    for (const job of jobs) {
      const own = unconfirmed.get(job.key);
      if (own && own.hash === job.hash && own.token === job.token) {
        answers.set(job.key, own.answer);
        continue;
      }
      const { change, answer } = decide(job, clock);
      if (!change) answers.set(job.key, answer);
      else {
        const setAside = { ...unreadableChange, ...(change.isTaken && { isTaken: change.isTaken }) };
        changes.push({ job, ...withDocument<Change>(job, change, setAside), answer });
      }
    }
    if (changes.length === 0) return { conflicts: [], deferred };
    const { keys } = this;
    let isRepeated = false;
    const onRepeat = () => {
      isRepeated = true;
      options?.onRepeat?.();
    };
    const written = (await this.connection.run(
      changeScript,
      [
        keys.active,
        keys.incomplete,
        keys.claims,
        keys.queued,
        keys.finished("complete"),
        keys.finished("failed"),
        keys.finished("aborted"),
        ...changes.flatMap(({ job }) => [keys.id(job.key), keys.abort(job.key)]),
      ],
      changes.flatMap(({ job, change, document }) =>
        argumentsOf(job, change, { document, clock, events: keys.events }),
      ),
      { ...options, onRepeat },
    )) as number[];
    const conflicts: string[] = [];
    for (const [index, { job, change, document, answer }] of changes.entries()) {
      if (written[index] === 1) answers.set(job.key, answer);
      else {
        conflicts.push(job.key);
        if (!isRepeated) continue;
        const hash = document === null ? job.hash : hashOf(document);
        const isDeletion = change.keep !== undefined && change.keep !== null && change.keep < 0;
        unconfirmed.set(job.key, { hash, token: tokenAfter(job, change), isDeletion, answer });
      }
    }
    return { conflicts, deferred };
  }

  /**
   * Reads jobs to change them. Keys without a job are left out. `clock` is the server's clock, epoch ms. `deferred`:
   * keys that were not read, because the documents together are too many bytes.
   */
  async #read(
    jobKeys: readonly string[],
    options?: RetryOptions,
  ): Promise<{ jobs: ReadJob[]; clock: number; deferred: readonly string[] }> {
    const { keys } = this;
    const [time, ...fields] = (await this.connection.run(
      readScript,
      [keys.claims, keys.incomplete, ...jobKeys.map((jobKey) => keys.id(jobKey))],
      [String(this.maxDocumentBytes), String(maxReadBytes)],
      options,
    )) as [string, ...(string | number)[]];
    const jobs: ReadJob[] = [];
    const count = fields.length / 4;
    for (const [index, jobKey] of jobKeys.slice(0, count).entries()) {
      const [document = "", hash = "", token = "", score = ""] = fields.slice(4 * index, 4 * index + 4);
      if (hash === "") continue;
      const job = {
        ...this.#stored(jobKey, isDamaged(document, String(hash)) ? "" : document),
        hash: String(hash),
        token: String(token),
        score: score === "" ? null : Number(score),
      };
      // An unreadable document has no status; the list that its id is in has one.
      jobs.push(job.score !== null && read(job) === null ? { ...job, status: await this.#listOf(job) } : job);
    }
    return { jobs, clock: Number(time), deferred: jobKeys.slice(count) };
  }

  async #readAll(jobKeys: readonly string[]): Promise<Map<string, StoredJob>> {
    const found = new Map<string, StoredJob>();
    for (let remaining = jobKeys; remaining.length > 0; ) {
      const { jobs, deferred } = await this.#read(remaining);
      for (const job of jobs) found.set(job.key, job);
      remaining = deferred;
    }
    return found;
  }

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
  async list({ statuses, offset, limit, due }: JobFilter): Promise<StoredJob[]> {
    const wanted = new Set(statuses);
    const found: StoredJob[] = [];
    let skip = offset;
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
      for (const job of await this.fetch(jobKeys, this.maxDocumentBytes)) {
        // The status of a document that was not read is known by the list only.
        if (job?.unreadBytes !== undefined) found.push({ ...job, status: source.status });
        else if (job && wanted.has(job.status)) found.push(job);
      }
    }
    return found;
  }

  #sources(wanted: ReadonlySet<Status>, due: boolean | undefined) {
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
      status: "queued" as Status,
      size: () => size(["ZCOUNT", key, min, max]),
      ids: (start: number, count: number) =>
        ids(["ZREVRANGEBYSCORE", key, max, min, "LIMIT", String(start), String(count)]),
    });
    const newestFirst = (status: TerminalStatus, key = keys.finished(status)) => ({
      status: status as Status,
      size: () => size(["ZCOUNT", key, `(${Math.floor(connection.clock.now())}`, "+inf"]),
      ids: (start: number, count: number) =>
        ids(["ZREVRANGEBYSCORE", key, "+inf", "0", "LIMIT", String(start), String(count)]),
    });
    const sources = [];
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
        status: "aborting" as Status,
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
    const jobs = ids.length === 0 ? [] : await this.fetch(ids.map((id) => keys.jobKey(id)));
    const isOver = next === "0" && moves === connection.moves;
    return {
      jobs: jobs.flatMap((job) => (job && statuses.includes(job.status) ? [job] : [])),
      next: isOver ? null : `${moves} ${next}`,
    };
  }

  async #listOf({ key, token }: ReadJob): Promise<"active" | "queued"> {
    if (token !== "") return "active";
    const place = await this.connection.command(["LPOS", this.keys.active, this.keys.id(key)]);
    return place === null ? "queued" : "active";
  }

  #stored(jobKey: string, document: string | number): StoredJob {
    if (typeof document === "number") {
      const unread = { scheduled: 0, document: "", unreadBytes: document };
      return { key: jobKey, queue: this.queueName, status: "failed", ...unread };
    }
    const { status, scheduled } = headOf(document, this.#queueMembers, this.queueName);
    return { key: jobKey, queue: this.queueName, status, scheduled, document };
  }
}

/**
 * Puts a job back that was taken from the queue and never marked as active: its document does not change. A job that is
 * due later keeps its time: somebody has changed it meanwhile, for instance a Python program that retries it.
 */
export const requeueTaken = (job: ReadJob, clock: number) => ({
  status: "queued" as const,
  patch: null,
  removed: [],
  scheduled: job.score !== null && job.score > 0 ? job.score : job.scheduled || Math.floor(clock / 1_000),
  position: "front" as const,
  isTaken: true as const,
});

/**
 * Removes the ids of jobs that are finished or gone from the lists of unfinished jobs, unless a job has changed since
 * it was read. `hashes`: the hash of each job's document by its key; "" if there was none.
 */
export async function forgetJobs(
  connection: RedisConnection,
  keys: QueueKeys,
  hashes: ReadonlyMap<string, string>,
): Promise<void> {
  const ids = [...hashes.keys()].map((jobKey) => keys.id(jobKey));
  await connection.run(
    forgetScript,
    [keys.active, keys.incomplete, keys.claims, ...ids],
    [...hashes.values()],
  );
}

/** True if the document may contain bytes that are not UTF-8: the client decodes these as U+FFFD. */
export const mayBeDamaged = (document: string | number | undefined): boolean =>
  typeof document === "string" && document.includes("\uFFFD");

/**
 * True if the document contains bytes that are not UTF-8; an edit would write U+FFFD in their place. An empty document
 * is no SAQ job, so that the job is treated as unreadable and its bytes stay as they are. A document may also contain
 * the character U+FFFD itself, for instance in the output of another program. `hash`: of the stored bytes.
 */
const isDamaged = (document: string | number, hash: string): boolean =>
  typeof document === "string" && mayBeDamaged(document) && hashOf(document) !== hash;

/** Returns status and due time of a document. A document that is no job of this queue is shown as failed. */
function headOf(
  document: string,
  queueMembers: readonly [string, string],
  queueName: string,
): { status: Status; scheduled: number } {
  // Most documents end with their status. The last member of the text decides, as it does for JSON.parse.
  const tail = /"status":\s?"([a-z]+)"\}$/.exec(document.slice(-40))?.[1];
  const last = tail === undefined ? null : parseStatus(tail);
  if (last && !document.includes('"scheduled":') && queueMembers.some((member) => document.includes(member)))
    return { status: last, scheduled: 0 };
  const value = parsed(document);
  // A document without a status is new; its id is in the queue.
  const text = value?.queue === queueName ? (value.status ?? "new") : null;
  const known = typeof text === "string" ? parseStatus(text) : null;
  const status = known === "new" ? "queued" : known;
  return {
    status: status ?? "failed",
    scheduled: typeof value?.scheduled === "number" ? value.scheduled : 0,
  };
}

function parsed(document: string): { queue?: unknown; status?: unknown; scheduled?: unknown } | null {
  try {
    const value: unknown = JSON.parse(document.replace(/\b(NaN|-?Infinity)\b/g, "null"));
    return typeof value === "object" && value !== null ? value : null;
  } catch {
    return null;
  }
}

/** Returns the token of a job after a change. */
function tokenAfter(job: ReadJob, { status, revoke, token }: Change): string {
  if (revoke) return "";
  return token ?? (status === "active" || status === "aborting" ? job.token || ownerless : "");
}

const hashOf = (document: string): string => createHash("sha1").update(document).digest("hex");

/** `document`: the new document; null if it stays. */
function argumentsOf(
  job: ReadJob,
  change: Change,
  { document, clock, events }: { document: string | null; clock: number; events: string },
): string[] {
  const { status, scheduled, keep, position = "back" } = change;
  const { notification = eventOf(job.key, status, events) } = change;
  const before = change.isTaken ? "active" : job.status;
  const isDue = scheduled !== undefined && scheduled <= clock / 1_000;
  const score = status !== "queued" || scheduled === undefined ? "" : isDue ? "0" : String(scheduled);
  return [
    job.hash,
    job.token,
    document ?? "",
    before,
    status,
    tokenAfter(job, change),
    status === "queued" && before !== "queued" ? score || "0" : score,
    position,
    keepOf(keep, job.status, status),
    notification?.channel ?? "",
    notification?.text ?? "",
  ];
}

/** The token of a job that no worker of this engine claimed. Without one, a job that is being aborted would be lost. */
const ownerless = "........." as const;

const keepOf = (keep: number | null | undefined, before: Status, after: Status): string => {
  if (keep === undefined) return isTerminal(before) === isTerminal(after) ? "=" : "";
  return keep === null ? "" : keep < 0 ? "-1" : String(Math.max(keep, 1));
};
