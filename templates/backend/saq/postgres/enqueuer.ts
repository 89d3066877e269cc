/**
 * Stores jobs, in two lanes. Generated keys are inserted in call order and cannot conflict. Keys that callers chose
 * go through the upsert of V-5.1 to V-5.3, one row per key and flush.
 */
import { type StoredJob, toldAheadSeconds } from "../broker.js";
import { InvalidJobError, SaqError } from "../errors.js";
import { isTerminal, parseStatus } from "../job.js";
import type { EnqueueOutcome, NewJob } from "../new-job.js";
import type { TransactionClient } from "../tasks/task.js";
import { wakeChannel } from "./channels.js";
import { Coalescer } from "./coalescer.js";
import { backoffMs, isConnectionError, isDataError, isLockTimeout } from "./connection.js";
import { separator } from "./fragments.js";
import { Outcomes, Place } from "./outcomes.js";
import type { RowStore } from "./rows.js";
import type { PostgresServer } from "./server.js";

/** Of generated keys. After a lock timeout a statement of keyed jobs is sent again job by job: fewer of these. */
const maxItems = 2_000;
const maxKeyedItems = 1_000;
const maxBytes = 4 * 1024 * 1024;

/** A btree entry holds 2,704 bytes; longer keys would fail at the server, and with them their flush. */
const maxKeyBytes = 2_000;

/** PostgreSQL takes 1 GB per value; a document of this size is a mistake long before. */
const maxDocumentBytes = 64 * 1024 * 1024;

const searchAfter = (error: unknown) =>
  isDataError(error) ? "halves" : isLockTimeout(error) ? "singles" : null;

/** What came of one row of a keyed insert. */
export interface UpsertRow {
  key: string;
  stored: boolean;
  queue: string | null;
  status: string | null;
}

/** Refused by a row that was not in the way when the statement began. */
const isUnexplained = ({ stored, status }: UpsertRow): boolean =>
  !stored && (status === null || isTerminal(parseStatus(status) ?? "failed"));

export class Enqueuer {
  readonly #generated: Coalescer<NewJob, EnqueueOutcome>;
  readonly #keyed: Coalescer<NewJob, EnqueueOutcome>;
  readonly #channel: string;

  constructor(
    private readonly server: PostgresServer,
    private readonly rows: RowStore,
    private readonly queueName: string,
  ) {
    this.#channel = wakeChannel(queueName);
    const limits = {
      maxBytes,
      bytesOf: (job: NewJob) => job.document.length,
      searchAfter,
    };
    this.#generated = new Coalescer((jobs) => this.#insert(jobs), { ...limits, maxItems });
    this.#keyed = new Coalescer((jobs) => this.#upsert(jobs), {
      ...limits,
      maxItems: maxKeyedItems,
      identityOf: (job) => job.key,
    });
  }

  /** @throws InvalidJobError for a key or document that cannot be stored */
  enqueue(job: NewJob): Promise<EnqueueOutcome> {
    checkStorable(job);
    return this.#laneOf(job).add(job);
  }

  /**
   * What fails is thrown when all of them are decided: whoever undoes them then must not be overtaken by one that is
   * stored later (D-60).
   *
   * @throws InvalidJobError when one of them cannot be stored; then none is
   */
  async enqueueMany(jobs: readonly NewJob[]): Promise<EnqueueOutcome[]> {
    for (const job of jobs) checkStorable(job);
    if (jobs.length === 0) return [];
    return new Promise((resolve, reject) => {
      const outcomes = new Outcomes(jobs.length, { resolve, reject });
      for (const [index, job] of jobs.entries()) this.#laneOf(job).put(job, new Place(outcomes, index));
    });
  }

  #laneOf(job: NewJob): Coalescer<NewJob, EnqueueOutcome> {
    return job.keyed ? this.#keyed : this.#generated;
  }

  /** In the caller's transaction: rows and notification become visible when it commits. */
  async enqueueWith(client: TransactionClient, job: NewJob): Promise<EnqueueOutcome> {
    checkStorable(job);
    const { rows } = await client.query(this.server.statements.upsertFree.text, this.values([job]));
    return this.outcome(rows[0] as unknown as UpsertRow | undefined);
  }

  async drained(): Promise<void> {
    await Promise.all([this.#generated.drained(), this.#keyed.drained()]);
  }

  async #insert(jobs: NewJob[]): Promise<EnqueueOutcome[]> {
    const { insert, insertAgain } = this.server.statements;
    const values = this.#insertValues(jobs);
    try {
      await this.server.query(insert, values);
    } catch (error) {
      if (!isConnectionError(error)) throw error;
      await this.server.pause(backoffMs(0));
      await this.server.queryAgain(insertAgain, values);
    }
    return jobs.map(() => stored);
  }

  async #upsert(jobs: NewJob[]): Promise<EnqueueOutcome[]> {
    let rows: UpsertRow[];
    try {
      rows = await this.server.query<UpsertRow>(this.server.statements.upsert, this.values(jobs));
    } catch (error) {
      if (!isConnectionError(error)) throw explained(jobs, error);
      return this.#upsertAgain(jobs);
    }
    return this.#outcomes(jobs, rows, false);
  }

  /**
   * The way to the database broke, and what was sent may be stored all the same. Its job may even be over by now, so that
   * the key is free: sent again unseen, it would run again.
   */
  async #upsertAgain(jobs: NewJob[]): Promise<EnqueueOutcome[]> {
    await this.server.pause(backoffMs(0));
    const held = await this.rows.fetchAgain(jobs.map((job) => job.key));
    const left = jobs.filter((job, index) => !isSame(held[index], job));
    if (left.length === 0) return jobs.map(() => ({ stored: true }));
    const { rows } = await this.server
      .queryAgain<UpsertRow>(this.server.statements.upsert, this.values(left))
      .catch((error: unknown) => {
        throw explained(left, error);
      });
    const outcomes = await this.#outcomes(left, rows, true);
    const byKey = new Map(left.map((job, index) => [job.key, outcomes[index]]));
    return jobs.map((job) => byKey.get(job.key) ?? { stored: true });
  }

  async #outcomes(jobs: NewJob[], rows: readonly UpsertRow[], resent: boolean): Promise<EnqueueOutcome[]> {
    const byKey = new Map(rows.map((row) => [row.key, row]));
    const outcomes = jobs.map((job) => this.outcome(byKey.get(job.key)));
    return resent || rows.some(isUnexplained) ? this.#lookAgain(jobs, outcomes, { rows, resent }) : outcomes;
  }

  /**
   * After a lost connection a refusal may be our own first try: same key and same `queued` means it was stored. And
   * the statement tells what it saw when it began: who was faster has enqueued or retried the job since.
   */
  async #lookAgain(
    jobs: NewJob[],
    outcomes: EnqueueOutcome[],
    { rows, resent }: { rows: readonly UpsertRow[]; resent: boolean },
  ): Promise<EnqueueOutcome[]> {
    const held = await this.rows.fetch(jobs.map((job) => job.key));
    const seen = new Set(rows.flatMap(({ key, queue }) => (queue === null ? [] : [key])));
    return outcomes.map((outcome, index) => {
      const row = held[index];
      const job = jobs[index];
      if (outcome.stored || !job) return outcome;
      if (!row) return seen.has(job.key) ? outcome : { stored: false, reason: "other_queue" };
      if (resent && isSame(row, job)) return { stored: true };
      return isTerminal(row.status) ? outcome : { stored: false, reason: "key_alive" };
    });
  }

  outcome(row: UpsertRow | undefined): EnqueueOutcome {
    if (row?.stored) return { stored: true };
    if (row?.queue && row.queue !== this.queueName) return { stored: false, reason: "other_queue" };
    const status = row?.status ? parseStatus(row.status) : null;
    return { stored: false, reason: status && isTerminal(status) ? "scheduled_not_later" : "key_alive" };
  }

  values(jobs: readonly NewJob[]): unknown[] {
    return [
      this.queueName,
      jobs.map((job) => job.key),
      jobs.map((job) => job.document),
      ...placing(jobs),
      this.#channelFor(jobs),
    ];
  }

  #insertValues(jobs: readonly NewJob[]): unknown[] {
    return [
      this.queueName,
      jobs.map((job) => job.key).join(separator),
      jobs.map((job) => job.document).join(separator),
      ...(jobs.every(isPlain) ? [[], [], []] : placing(jobs)),
      this.#channelFor(jobs),
    ];
  }

  /** Nobody is woken for later jobs: workers find these by themselves, before they are due. */
  #channelFor(jobs: readonly NewJob[]): string | null {
    const latest = this.server.now() / 1000 + toldAheadSeconds;
    return jobs.some((job) => job.scheduled <= latest) ? this.#channel : null;
  }
}

const stored: EnqueueOutcome = { stored: true };

/** Where jobs stand among others: the columns that most of them leave as they are. */
const placing = (jobs: readonly NewJob[]): unknown[][] => [
  jobs.map((job) => job.priority),
  jobs.map((job) => job.groupKey),
  jobs.map((job) => job.scheduled),
];

const isPlain = ({ priority, groupKey, scheduled }: NewJob): boolean =>
  priority === 0 && groupKey === null && scheduled === 0;

const keyHeld = (key: string, cause: unknown): SaqError =>
  new SaqError(
    "key_held",
    `Job key ${JSON.stringify(key)} is held by a transaction that has been open for over 2 s; nothing was stored. ` +
      "Enqueue it again when that transaction has ended.",
    { cause },
  );

const explained = ([job, ...others]: readonly NewJob[], error: unknown): unknown =>
  job && others.length === 0 && isLockTimeout(error) ? keyHeld(job.key, error) : error;

/** The row of this very enqueue: same key and same `queued`. */
const isSame = (row: StoredJob | null | undefined, job: NewJob): boolean =>
  Boolean(row) && queuedAt(row?.document ?? "") === queuedAt(job.document);

function queuedAt(document: string): unknown {
  try {
    return (JSON.parse(document) as { queued?: unknown }).queued;
  } catch {
    return null;
  }
}

function checkStorable(job: NewJob): void {
  if (job.keyed || job.groupKey !== null) checkChosenTexts(job);
  if (job.document.length > maxDocumentBytes) {
    throw new InvalidJobError(
      `The job is ${Math.round(job.document.length / 1024 / 1024)} MB as JSON, at most 64 MB can be stored; ` +
        "store the data elsewhere and enqueue a reference to it",
    );
  }
}

function checkChosenTexts(job: NewJob): void {
  const bytes = Buffer.byteLength(job.key);
  if (job.key === "" || bytes > maxKeyBytes) {
    throw new InvalidJobError(
      `A job key must have 1 to ${maxKeyBytes} bytes, got ${bytes}: ${job.key.slice(0, 60)}`,
    );
  }
  for (const [what, text] of [["key", job.key] as const, ["groupKey", job.groupKey ?? ""] as const]) {
    // The driver would write a replacement character, and the job would be stored under another key.
    const flaw = text.includes("\0")
      ? "a NUL character"
      : /\p{Surrogate}/u.test(text)
        ? "half of a character"
        : null;
    if (flaw)
      throw new InvalidJobError(`A job's ${what} must not contain ${flaw}, got ${JSON.stringify(text)}`);
  }
  if (Buffer.byteLength(job.groupKey ?? "") > maxKeyBytes) {
    throw new InvalidJobError(`A job's groupKey must have at most ${maxKeyBytes} bytes`);
  }
}
