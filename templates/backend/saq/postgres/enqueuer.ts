/**
 * Stores jobs, in two lanes. Jobs with generated keys are inserted in call order and cannot conflict. Jobs with keys
 * that callers chose are upserted, one row per key and flush. An unknown key is inserted. A finished job of this queue
 * that was due earlier is replaced. Any other known key is refused.
 */

import { notifyAheadSeconds } from "../broker.js";
import { backoffMs } from "../core/backoff.js";
import { bytesOf } from "../core/byte-size.js";
import { isTerminal, parseStatus } from "../core/job.js";
import type { EnqueueOutcome, NewJob } from "../core/new-job.js";
import type { StoredJob } from "../core/stored-job.js";
import type { TransactionClient } from "../core/transaction-client.js";
import { SaqError } from "../errors.js";
import { BulkOutcomes, BulkSlot } from "../storage/bulk-enqueue.js";
import { Coalescer, type Tries } from "../storage/coalescer.js";
import { checkStorable } from "../storage/storable-key.js";
import { wakeChannel } from "./channels.js";
import { isConnectionError, isDataError, isLockTimeout, isRolledBack } from "./connection/errors.js";
import { HeldKeys } from "./held-keys.js";
import type { RowStore } from "./rows.js";
import { type Statement, separator } from "./sql/fragments.js";
import type { TableSession } from "./table-session.js";

/** Maximum number of jobs with generated keys in one flush. */
const maxItems = 2_000;
/**
 * The same for chosen keys. It is lower, because all these jobs are sent again in small groups if another transaction
 * holds one of the keys.
 */
const maxKeyedItems = 1_000;
/** How long a call waits for an unreachable database, ms: less than the timeouts of browsers and proxies. */
const timeoutMs = 8_000;
/** Maximum number of retries of a statement that the server rolled back because of a conflict. */
const maxRollbacks = 4;
const maxBytes = 4 * 1024 * 1024;

const splitOnError = (error: unknown) => (isDataError(error) || isRolledBack(error) ? "halves" : null);

/** A flush whose transaction may have committed although the response to the commit was lost, and its result rows. */
interface UncertainFlush {
  transaction: string;
  rows: readonly UpsertRow[];
}

/** The result for one row of a keyed insert. */
export interface UpsertRow {
  key: string;
  stored: boolean;
  queue: string | null;
  status: string | null;
}

/** True if the row was refused although the statement saw no unfinished job under its key when it began. */
const needsExplanation = ({ stored, status }: UpsertRow): boolean =>
  !stored && (status === null || isTerminal(parseStatus(status) ?? "failed"));

export class Enqueuer {
  readonly #generated: Coalescer<NewJob, EnqueueOutcome>;
  readonly #keyed: Coalescer<NewJob, EnqueueOutcome>;
  readonly #heldKeys: HeldKeys;
  /** Flushes whose transaction must be looked up before any of their jobs is sent again. */
  readonly #uncertainFlushes = new WeakMap<Tries, UncertainFlush>();
  readonly #channel: string;

  constructor(
    private readonly session: TableSession,
    private readonly rows: RowStore,
    private readonly queueName: string,
  ) {
    this.#channel = wakeChannel(queueName);
    const limits = {
      maxBytes,
      bytesOf: (job: NewJob) => bytesOf(job.document),
      splitOnError,
      retry: {
        timeoutMs,
        isTransient: isConnectionError,
        waitMs: backoffMs,
        pause: (ms: number) => session.pool.pause(ms),
        timeoutError: databaseUnavailable,
      },
    };
    this.#generated = new Coalescer((jobs, tries) => this.#insert(jobs, tries), { ...limits, maxItems });
    this.#keyed = new Coalescer((jobs, tries) => this.#upsert(jobs, tries), {
      ...limits,
      maxItems: maxKeyedItems,
      identityOf: (job) => job.key,
      answerDuplicate,
    });
    this.#heldKeys = new HeldKeys({
      store: async (jobs) => this.#outcomes(jobs, await this.#sendUpsert(jobs, "upsertHeld"), false),
      pause: (ms) => session.pool.pause(ms),
    });
  }

  /**
   * Stores a job with the next flush.
   *
   * @throws InvalidJobError for a key that cannot be stored
   */
  enqueue(job: NewJob): Promise<EnqueueOutcome> {
    checkStorable(job);
    return this.#coalescerFor(job).add(job);
  }

  /**
   * Stores the jobs and returns their outcomes in order. Throws a failure only when all jobs are decided: a batch that
   * fails aborts its stored jobs, and it must not miss a job that is stored later.
   *
   * @throws InvalidJobError when one of the jobs cannot be stored; then none is stored
   */
  async enqueueMany(jobs: readonly NewJob[]): Promise<EnqueueOutcome[]> {
    for (const job of jobs) checkStorable(job);
    if (jobs.length === 0) return [];
    return new Promise((resolve, reject) => {
      const outcomes = new BulkOutcomes(jobs.length, { resolve, reject });
      // By index: an iterator over entries creates an array for each job.
      for (let index = 0; index < jobs.length; index++) {
        const job = jobs[index] as NewJob;
        this.#coalescerFor(job).put(job, new BulkSlot(outcomes, index));
      }
    });
  }

  #coalescerFor(job: NewJob): Coalescer<NewJob, EnqueueOutcome> {
    return job.keyed ? this.#keyed : this.#generated;
  }

  /** Stores a job in the caller's transaction: the row and the notification become visible when it commits. */
  async enqueueWith(client: TransactionClient, job: NewJob): Promise<EnqueueOutcome> {
    checkStorable(job);
    const { upsertInTransaction } = this.session.statements;
    const { rows } = await client.query(upsertInTransaction.text, this.upsertValues([job]));
    return this.outcomeOf(rows[0] as unknown as UpsertRow | undefined);
  }

  async drained(): Promise<void> {
    await Promise.all([this.#generated.drained(), this.#keyed.drained()]);
    await this.#heldKeys.drained();
  }

  async #insert(jobs: NewJob[], tries: Tries): Promise<EnqueueOutcome[]> {
    const { insert, insertAgain, insertTracked } = this.session.statements;
    const values = this.#insertValues(jobs);
    if (this.#isTracked(jobs, tries)) await this.#sendTracked(insertTracked, values, tries);
    else await this.session.pool.query(tries.count === 0 ? insert : insertAgain, values);
    return jobs.map(() => stored);
  }

  /** `tracked` applies to all jobs of the flush, because a later try may send jobs that this try leaves out. */
  async #upsert(
    jobs: NewJob[],
    tries: Tries,
    tracked = this.#isTracked(jobs, tries),
  ): Promise<(EnqueueOutcome | Promise<EnqueueOutcome>)[]> {
    const withFreeKeys = jobs.filter(({ key }) => !this.#heldKeys.has(key));
    if (withFreeKeys.length < jobs.length) {
      const outcomes = withFreeKeys.length > 0 ? await this.#upsert(withFreeKeys, tries, tracked) : [];
      const byKey = new Map(withFreeKeys.map(({ key }, index) => [key, outcomes[index]]));
      return jobs.map((job) => byKey.get(job.key) ?? this.#heldKeys.store(job));
    }
    try {
      if (tracked) return await this.#upsertTracked(jobs, tries);
      if (tries.count > 0) return await this.#upsertAgain(jobs);
      return await this.#outcomes(jobs, await this.#sendUpsert(jobs), false);
    } catch (error) {
      if (!isLockTimeout(error)) throw error;
      return jobs.map((job) => this.#heldKeys.store(job));
    }
  }

  /**
   * Sends the statement. Retries it after a deadlock or a conflict of serializable transactions: the server has rolled
   * it back, and it may succeed when it is sent again.
   */
  async #sendUpsert(jobs: NewJob[], statement: "upsert" | "upsertHeld" = "upsert"): Promise<UpsertRow[]> {
    for (let rollbacks = 0; ; rollbacks++) {
      try {
        return await this.session.pool.query<UpsertRow>(
          this.session.statements[statement],
          this.upsertValues(jobs),
        );
      } catch (error) {
        if (!isRolledBack(error) || rollbacks === maxRollbacks) throw error;
        await this.session.pool.pause(backoffMs(rollbacks) / 4);
      }
    }
  }

  /**
   * True if the flush must be sent with a transaction number. The row of a short-lived job may be deleted a moment
   * after the job ends. If the response to the flush is lost, no row then shows that the job was stored. The job would
   * be sent again and run twice.
   */
  #isTracked(jobs: readonly NewJob[], tries: Tries): boolean {
    return this.#uncertainFlushes.has(tries) || jobs.some(({ shortLived }) => shortLived);
  }

  /**
   * Sends a flush and receives the number of its transaction. With this number the server can later say whether the
   * transaction has committed. The number arrives before the commit is sent, so a transaction without a known number
   * has not committed. This costs two round trips more than other flushes.
   */
  async #sendTracked(statement: Statement, values: unknown[], tries: Tries): Promise<readonly UpsertRow[]> {
    const previous = this.#uncertainFlushes.get(tries);
    if (previous && (await this.#hasCommitted(previous.transaction))) return previous.rows;
    this.#uncertainFlushes.delete(tries);
    let sent: UncertainFlush | undefined;
    try {
      return await this.session.pool.transaction(async (client) => {
        const { rows } = await client.query<UpsertRow & { transaction: string }>(
          this.session.pool.prepared(statement, values),
        );
        const [first] = rows;
        if (first) sent = { transaction: first.transaction, rows };
        return rows;
      });
    } catch (error) {
      if (sent) this.#uncertainFlushes.set(tries, sent);
      throw error;
    }
  }

  async #upsertTracked(jobs: NewJob[], tries: Tries): Promise<(EnqueueOutcome | Promise<EnqueueOutcome>)[]> {
    const { upsertTracked } = this.session.statements;
    const rows = await this.#sendTracked(upsertTracked, this.upsertValues(jobs), tries);
    const keys = new Set(rows.map(({ key }) => key));
    const sent = jobs.filter(({ key }) => keys.has(key));
    const outcomes = await this.#outcomes(sent, rows, false);
    const byKey = new Map(sent.map(({ key }, index) => [key, outcomes[index]]));
    // The rows may be those of a previous try, which did not contain the jobs whose keys were held at that time.
    return jobs.map((job) => byKey.get(job.key) ?? this.#heldKeys.store(job));
  }

  /** @throws SaqError database_unavailable while the transaction is still in progress */
  async #hasCommitted(transaction: string): Promise<boolean> {
    const { transactionStatus } = this.session.statements;
    const [row] = await this.session.pool
      .query<{ status: string | null }>(transactionStatus, [transaction])
      .catch((error: unknown) => {
        // The server has not reached this transaction number yet, because it is a standby that was promoted.
        if (isDataError(error)) return [];
        throw error;
      });
    if (row?.status === "in progress")
      throw new SaqError(
        "database_unavailable",
        "It is not known yet whether the jobs are stored, because their transaction is still in progress",
      );
    return row?.status === "committed";
  }

  /**
   * Sends jobs again after the connection was lost. The previous try may have stored them, although no response came.
   * Such a job may even have ended since, so that its key is free. If it were sent without a look at its row, it would
   * run a second time.
   */
  async #upsertAgain(jobs: NewJob[]): Promise<EnqueueOutcome[]> {
    const rowsBefore = await this.rows.fetch(jobs.map((job) => job.key));
    const unstored = jobs.filter((job, index) => !isSameEnqueue(rowsBefore[index], job));
    if (unstored.length === 0) return jobs.map(() => ({ stored: true }));
    const outcomes = await this.#outcomes(unstored, await this.#sendUpsert(unstored), true);
    const byKey = new Map(unstored.map((job, index) => [job.key, outcomes[index]]));
    return jobs.map((job) => byKey.get(job.key) ?? { stored: true });
  }

  async #outcomes(jobs: NewJob[], rows: readonly UpsertRow[], resent: boolean): Promise<EnqueueOutcome[]> {
    const byKey = new Map(rows.map((row) => [row.key, row]));
    const outcomes = jobs.map((job) => this.outcomeOf(byKey.get(job.key)));
    return resent || rows.some(needsExplanation)
      ? this.#explainRefusals(jobs, outcomes, { rows, resent })
      : outcomes;
  }

  /**
   * Finds the reason for refusals by reading the rows again. After a lost connection, a job may be refused because the
   * previous try has stored it: then the row has the same key and the same `queued`. Otherwise the statement has
   * returned the row as it was when the statement began, and another process has enqueued or retried the job since.
   */
  async #explainRefusals(
    jobs: NewJob[],
    outcomes: EnqueueOutcome[],
    { rows, resent }: { rows: readonly UpsertRow[]; resent: boolean },
  ): Promise<EnqueueOutcome[]> {
    const storedRows = await this.rows.fetch(jobs.map((job) => job.key));
    const foundKeys = new Set(rows.flatMap(({ key, queue }) => (queue === null ? [] : [key])));
    return outcomes.map((outcome, index) => {
      const row = storedRows[index];
      const job = jobs[index];
      if (outcome.stored || !job) return outcome;
      if (!row) return foundKeys.has(job.key) ? outcome : { stored: false, reason: "other_queue" };
      if (resent && isSameEnqueue(row, job)) return { stored: true };
      return isTerminal(row.status) ? outcome : { stored: false, reason: "key_alive" };
    });
  }

  outcomeOf(row: UpsertRow | undefined): EnqueueOutcome {
    if (row?.stored) return { stored: true };
    if (row?.queue && row.queue !== this.queueName) return { stored: false, reason: "other_queue" };
    const status = row?.status ? parseStatus(row.status) : null;
    return { stored: false, reason: status && isTerminal(status) ? "scheduled_not_later" : "key_alive" };
  }

  upsertValues(jobs: readonly NewJob[]): unknown[] {
    return [
      this.queueName,
      jobs.map((job) => job.key),
      jobs.map((job) => job.document),
      ...positionColumns(jobs),
      this.#channelFor(jobs),
    ];
  }

  #insertValues(jobs: readonly NewJob[]): unknown[] {
    return [
      this.queueName,
      jobs.map((job) => job.key).join(separator),
      jobs.map((job) => job.document).join(separator),
      ...(jobs.every(hasDefaultPosition) ? [[], [], []] : positionColumns(jobs)),
      this.#channelFor(jobs),
    ];
  }

  /**
   * Returns null if no job is due within `notifyAheadSeconds`. Workers need no notification of later jobs, because they
   * find them by polling before they are due.
   */
  #channelFor(jobs: readonly NewJob[]): string | null {
    const latest = this.session.pool.clock.now() / 1000 + notifyAheadSeconds;
    return jobs.some((job) => job.scheduled <= latest) ? this.#channel : null;
  }
}

const stored: EnqueueOutcome = { stored: true };

/** The columns that decide a job's position in the queue. Most jobs have the default values. */
const positionColumns = (jobs: readonly NewJob[]): unknown[][] => [
  jobs.map((job) => job.priority),
  jobs.map((job) => job.groupKey),
  jobs.map((job) => job.scheduled),
];

const hasDefaultPosition = ({ priority, groupKey, scheduled }: NewJob): boolean =>
  priority === 0 && groupKey === null && scheduled === 0;

const databaseUnavailable = (): SaqError =>
  new SaqError(
    "database_unavailable",
    `The database has not answered for ${timeoutMs / 1_000} s; the job was not sent and is not stored`,
  );

/**
 * Returns the outcome for `duplicate`, a job with the same key that was waiting when `job` was sent. If `job` was
 * stored, the duplicate is refused because the key is in use. If `job` was refused, the duplicate is refused for the
 * same reason. Returns undefined if the duplicate may still be stored because it is due later than `job`: then it has
 * to be sent itself.
 */
function answerDuplicate(
  outcome: EnqueueOutcome,
  job: NewJob,
  duplicate: NewJob,
): EnqueueOutcome | undefined {
  if (outcome.stored) return { stored: false, reason: "key_alive" };
  if (outcome.reason !== "scheduled_not_later") return outcome;
  return duplicate.scheduled <= job.scheduled ? outcome : undefined;
}

/** True if this same enqueue has stored the row: same key and same `queued`. */
const isSameEnqueue = (row: StoredJob | null | undefined, job: NewJob): boolean =>
  Boolean(row) && queuedAt(row?.document ?? "") === queuedAt(job.document);

function queuedAt(document: string): unknown {
  try {
    return (JSON.parse(document) as { queued?: unknown }).queued;
  } catch {
    return null;
  }
}
