/** Reads and changes single jobs. A change is written only if nobody else has changed the job since it was read. */
import { createHash } from "node:crypto";
import { backoffMs } from "../core/backoff.js";
import { maxDocumentBytes, maxReadBytes } from "../core/byte-size.js";
import { isTerminal, parseStatus, type Status } from "../core/job.js";
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
        /** A notification of the change. @defaultValue an event for all, if the status changes */
        notification?: Notification | null;
      })
    | null;
  answer: T;
}

/** Decides how to change a job. `clock` is the server's clock, epoch ms. */
export type Decide<T> = (job: ReadJob, clock: number) => JobDecision<T>;

type Change = NonNullable<JobDecision<unknown>["change"]>;

/** A change of a job that was read, with the document that it writes; null if the document stays. */
interface PlannedChange<T> {
  job: ReadJob;
  change: Change;
  document: string | null;
  answer: T;
}

/** Answers about jobs by key, and the changes of which nobody knows yet whether they were carried out. */
interface Outcome<T> {
  answers: Map<string, T>;
  unconfirmed: Map<string, Unconfirmed<T>>;
}

/** The result for the jobs of a page. */
interface ChangedJobs<T> {
  answers: Map<string, T>;
  /** Keys of jobs that were changed. */
  changed: Set<string>;
  /** Keys of jobs that others change all the time. */
  held: readonly string[];
  /** How many of the given jobs were looked at. */
  inspected: number;
}

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
    const outcome: Outcome<T> = { answers: new Map(), unconfirmed: new Map() };
    const [held] = await this.#changeAll([...new Set(jobKeys)], decide, options, outcome);
    if (held === undefined) return outcome.answers;
    throw new SaqError(
      "job_held",
      `Job ${JSON.stringify(held)} was changed by others ${maxTries} times while this change was decided; ` +
        "nothing was changed. Try again",
    );
  }

  /**
   * Changes the first `limit` jobs for which `decide` returns a decision, in the order of the keys. Decides about a job
   * again if others have changed it meanwhile.
   */
  async changeFirst<T>(
    jobKeys: readonly string[],
    decide: (job: ReadJob, clock: number) => JobDecision<T> | null,
    limit: number,
  ): Promise<ChangedJobs<T>> {
    const outcome: Outcome<T> = { answers: new Map(), unconfirmed: new Map() };
    const { answers } = outcome;
    const changed = new Set<string>();
    const held: string[] = [];
    const pending = [...new Set(jobKeys)];
    let inspected = 0;
    while (inspected < pending.length && answers.size + held.length < limit) {
      const batch = pending.slice(inspected, inspected + batchSize);
      const { jobs, clock, deferred } = await this.#read(batch);
      const jobOf = new Map(jobs.map((job) => [job.key, job]));
      const planned: PlannedChange<T>[] = [];
      for (const jobKey of batch.slice(0, batch.length - deferred.length)) {
        if (answers.size + held.length + planned.length >= limit) break;
        inspected++;
        const job = jobOf.get(jobKey);
        const decision = job && decide(job, clock);
        if (!decision) continue;
        if (decision.change) planned.push(plan(job, decision.change, decision.answer));
        else answers.set(jobKey, decision.answer);
      }
      const conflicts = new Set(await this.#write(planned, clock, undefined, outcome));
      for (const { job } of planned) if (!conflicts.has(job.key)) changed.add(job.key);
      if (conflicts.size > 0) held.push(...(await this.#changeAgain(conflicts, decide, outcome, changed)));
    }
    return { answers, changed, held, inspected };
  }

  /** Decides again about jobs that others have changed. Returns the keys of those that others change all the time. */
  async #changeAgain<T>(
    jobKeys: Iterable<string>,
    decide: (job: ReadJob, clock: number) => JobDecision<T> | null,
    { answers, unconfirmed }: Outcome<T>,
    changed: Set<string>,
  ): Promise<readonly string[]> {
    type Again = { answer: T; isChanged: boolean } | null;
    const again: Outcome<Again> = { answers: new Map(), unconfirmed: new Map() };
    for (const [key, { answer, ...own }] of unconfirmed)
      again.unconfirmed.set(key, { ...own, answer: { answer, isChanged: true } });
    const decideAgain = (job: ReadJob, clock: number): JobDecision<Again> => {
      const decision = decide(job, clock);
      if (!decision) return { change: null, answer: null };
      const { change, answer } = decision;
      return { change, answer: { answer, isChanged: change !== null } };
    };
    const held = await this.#changeAll([...jobKeys], decideAgain, undefined, again);
    for (const [key, found] of again.answers) {
      if (found) answers.set(key, found.answer);
      if (found?.isChanged) changed.add(key);
    }
    return held;
  }

  /** Changes jobs, and returns the keys of those that others change all the time. */
  async #changeAll<T>(
    jobKeys: readonly string[],
    decide: Decide<T>,
    options: RetryOptions | undefined,
    outcome: Outcome<T>,
  ): Promise<readonly string[]> {
    let remaining = jobKeys;
    for (let tries = 0; remaining.length > 0 && tries < maxTries; tries++) {
      if (tries > 2) await this.connection.pause(backoffMs(tries) / 20);
      const conflicts: string[] = [];
      while (remaining.length > 0) {
        const page = remaining.slice(0, batchSize);
        const { conflicts: changed, deferred } = await this.#changePage(page, decide, options, outcome);
        conflicts.push(...changed);
        remaining = [...deferred, ...remaining.slice(batchSize)];
      }
      remaining = conflicts;
    }
    return remaining;
  }

  /**
   * Returns the keys of jobs that others changed between reading and writing (`conflicts`), and of jobs that were not
   * read (`deferred`).
   */
  async #changePage<T>(
    jobKeys: readonly string[],
    decide: Decide<T>,
    options: RetryOptions | undefined,
    { answers, unconfirmed }: Outcome<T>,
  ): Promise<{ conflicts: string[]; deferred: readonly string[] }> {
    const { jobs, clock, deferred } = await this.#read(jobKeys, options);
    const planned: PlannedChange<T>[] = [];
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
      if (change) planned.push(plan(job, change, answer));
      else answers.set(job.key, answer);
    }
    return { conflicts: await this.#write(planned, clock, options, { answers, unconfirmed }), deferred };
  }

  /** Writes changes, and returns the keys of jobs that others changed since they were read. */
  async #write<T>(
    planned: readonly PlannedChange<T>[],
    clock: number,
    options: RetryOptions | undefined,
    { answers, unconfirmed }: Outcome<T>,
  ): Promise<string[]> {
    if (planned.length === 0) return [];
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
        ...planned.flatMap(({ job }) => [keys.id(job.key), keys.abort(job.key)]),
      ],
      planned.flatMap(({ job, change, document }) =>
        argumentsOf(job, change, { document, clock, events: keys.events }),
      ),
      { ...options, onRepeat },
    )) as number[];
    const conflicts: string[] = [];
    for (const [index, { job, change, document, answer }] of planned.entries()) {
      if (written[index] === 1) answers.set(job.key, answer);
      else {
        conflicts.push(job.key);
        if (!isRepeated) continue;
        const hash = document === null ? job.hash : hashOf(document);
        const isDeletion = change.keep !== undefined && change.keep !== null && change.keep < 0;
        unconfirmed.set(job.key, { hash, token: tokenAfter(job, change), isDeletion, answer });
      }
    }
    return conflicts;
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

/** Returns a change with its document. A document that is no JSON object is set aside. */
function plan<T>(job: ReadJob, change: Change, answer: T): PlannedChange<T> {
  const setAside = { ...unreadableChange, ...(change.isTaken && { isTaken: change.isTaken }) };
  return { job, ...withDocument<Change>(job, change, setAside), answer };
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
  const { notification = status === job.status ? null : eventOf(job.key, status, events) } = change;
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
