/**
 * Settles jobs, many per statement. All settlements that arrive while one statement is in flight go into the next
 * statement. If a statement does not change a row, the row is locked and decided alone. There are four causes: the job
 * was aborted meanwhile, the job belongs to another worker now, SQL cannot read its document, or another transaction
 * has locked its row. If there are many such rows, their settlements are first sent again together.
 */

import type { Decided, Settlement, SettleResult } from "../broker.js";
import { bytesOf } from "../core/byte-size.js";
import { isTakenOver, read } from "../core/stored-job.js";
import { finishedFields, keepSeconds } from "../core/transitions.js";
import { encodeChange, mergePatches } from "../core/wire.js";
import { SaqError } from "../errors.js";
import { Coalescer, type CoalescerOptions } from "../storage/coalescer.js";
import { isCancelled, isDataError } from "./connection/errors.js";
import type { Finisher } from "./finisher.js";
import type { Row } from "./raw-rows.js";
import { receiptOf } from "./receipt.js";
import { RecordedSettlements } from "./recorded-settlements.js";
import type { RowDecision, RowStore } from "./rows.js";
import { isSuffixSettlement, SettlementWriter, type Write } from "./settlement-writer.js";
import type { TableSession } from "./table-session.js";

/**
 * How long a settlement is retried while the database is unreachable, ms. The worker keeps the result in memory until
 * then, so that finished jobs survive an outage of some minutes.
 */
export const settleTimeoutMs = 10 * 60_000;

/**
 * If a statement leaves at most this many settlements unwritten, they are decided one by one. If it leaves more, they
 * are sent again together, after each of the pauses in `resendPausesMs`. The reason is that a claim locks rows before
 * it sees that another worker's claim has just taken them. It keeps the locks until its end, some 10 ms later. It may
 * lock every row of a batch. To decide these one by one took a second (two workers that drained 20,000 jobs, in every
 * fifth run).
 */
const maxDecidedOneByOne = 10;
const resendPausesMs = [10, 20, 40, 80];
/** Stop after this many retries in a row without progress: the rows are not locked by another worker's claim. */
const maxFruitlessRetries = 3;
/**
 * Timeout of one such retry, ms. It is short, because each settlement that is left is then decided alone within
 * `settleTimeoutMs`.
 */
const resendTimeoutMs = 1_000;

export class Settler {
  readonly #coalescer: Coalescer<Settlement, SettleResult>;
  /**
   * Completions whose document still has the suffix that the claim wrote. Most settlements of most queues are of this
   * kind.
   */
  readonly #completions: Coalescer<Settlement, SettleResult>;
  /** The same completions, for jobs whose row is deleted at once. */
  readonly #removals: Coalescer<Settlement, SettleResult>;
  /**
   * Settlements that tasks wrote in their own transactions. For most, a check that the transaction has committed is
   * enough.
   */
  readonly #confirmations: Coalescer<Settlement, SettleResult>;
  readonly #recordedSettlements: RecordedSettlements;
  readonly #writer: SettlementWriter;
  /** Settlements that their statement did not apply; each is still being resolved. */
  readonly #pendingResults = new Set<Promise<unknown>>();

  constructor(
    private readonly session: TableSession,
    private readonly rows: RowStore,
    private readonly finisher: Finisher,
    queueName: string,
    private readonly failedTtl: number,
  ) {
    this.#recordedSettlements = new RecordedSettlements(session, queueName);
    this.#writer = new SettlementWriter(session, queueName);
    const options: CoalescerOptions<Settlement, SettleResult> = {
      maxItems: 1_000,
      maxBytes: 4 * 1024 * 1024,
      bytesOf: (item) => bytesOf(item.patch),
      splitOnError: (error) => (isDataError(error) || isCancelled(error) ? "halves" : null),
      failureOf: unrecordedError,
    };
    // The statement returns keys. If it contained two settlements of one job, it would write only the first, but both
    // would be reported as applied.
    this.#coalescer = new Coalescer(
      (items) => this.#settleBatch(items, (...sent) => this.#writer.settle(...sent)),
      {
        ...options,
        identityOf: ({ key }) => key,
      },
    );
    this.#completions = new Coalescer<Settlement, SettleResult>(
      (items) => this.#settleBatch(items, (...sent) => this.#writer.complete(...sent)),
      options,
    );
    this.#removals = new Coalescer<Settlement, SettleResult>(
      (items) => this.#settleBatch(items, (...sent) => this.#writer.completeAndDelete(...sent)),
      options,
    );
    this.#confirmations = new Coalescer((items) => this.#confirm(items), options);
  }

  /**
   * Adds the settlement to the next statement. Rejects `decided` with SaqError unrecorded after ten minutes of retries,
   * or when the connections are closed.
   */
  settle(settlement: Settlement, decided: Decided<SettleResult>): void {
    if (receiptOf(settlement).transaction !== null) this.#confirmations.put(settlement, decided);
    else if (!isSuffixSettlement(settlement)) this.#coalescer.put(settlement, decided);
    else if (settlement.keep !== null && settlement.keep < 0) this.#removals.put(settlement, decided);
    else this.#completions.put(settlement, decided);
  }

  async drained(): Promise<void> {
    // The confirmations come first, because settlements that are not confirmed go to #coalescer.
    await this.#confirmations.drained();
    await Promise.all([this.#coalescer.drained(), this.#completions.drained(), this.#removals.drained()]);
    while (this.#pendingResults.size > 0) await Promise.allSettled(this.#pendingResults);
  }

  /**
   * Confirms settlements whose transaction has committed. If it was rolled back or is open, the settlement is sent as
   * usual.
   */
  async #confirm(items: Settlement[]): Promise<(SettleResult | Promise<SettleResult>)[]> {
    const results = await this.#recordedSettlements.resultsOf(items, settleTimeoutMs);
    return items.map((item, index) => results[index] ?? this.#track(this.#coalescer.add(item)));
  }

  async #settleBatch<Item extends Settlement>(
    items: Item[],
    write: Write<Item>,
  ): Promise<(SettleResult | Promise<SettleResult>)[]> {
    const written = await write(items, settleTimeoutMs);
    const unwritten = items.filter((_, index) => !written.applied[index]);
    const resentResults =
      unwritten.length > maxDecidedOneByOne
        ? this.#track(this.#resendBatch(unwritten, written.resent, write))
        : null;
    const decideLater = async (item: Item): Promise<SettleResult> =>
      (await resentResults)?.get(item) ?? this.#decideUnderLock(item);
    return items.map((item, index) => (written.applied[index] ? "applied" : this.#track(decideLater(item))));
  }

  /** Sends settlements again together. Returns the results of those that need not be decided one by one. */
  async #resendBatch<Item extends Settlement>(
    items: Item[],
    resent: boolean,
    write: Write<Item>,
  ): Promise<Map<Item, SettleResult>> {
    const results = new Map<Item, SettleResult>();
    let undecided = items;
    const checkRows = async () => {
      const found = await this.#recordedSettlements.resultsOf(undecided, settleTimeoutMs);
      for (const [index, result] of found.entries())
        if (result !== null) results.set(undecided[index] as Item, result);
      undecided = undecided.filter((item) => !results.has(item));
    };
    try {
      if (resent) await checkRows();
      if (undecided.length > maxDecidedOneByOne) {
        const unwritten = await this.#writeAgain(undecided, write);
        for (const item of undecided) if (!unwritten.has(item)) results.set(item, "applied");
        undecided = [...unwritten];
      }
      if (undecided.length > maxDecidedOneByOne) await checkRows();
    } catch {
      // Each settlement that is left is then decided alone, and gets its own error if that fails too.
    }
    return results;
  }

  /** Sends settlements again after pauses. Returns those that are still not written. */
  async #writeAgain<Item extends Settlement>(items: Item[], write: Write<Item>): Promise<Set<Item>> {
    let unwritten = items;
    let fruitlessRetries = 0;
    try {
      for (const pauseMs of resendPausesMs) {
        await this.session.pool.pause(pauseMs);
        const { applied } = await write(unwritten, resendTimeoutMs);
        fruitlessRetries = applied.includes(true) ? 0 : fruitlessRetries + 1;
        unwritten = unwritten.filter((_, index) => !applied[index]);
        if (unwritten.length <= maxDecidedOneByOne || fruitlessRetries === maxFruitlessRetries) break;
      }
    } catch {
      // Each settlement that is left is then decided alone, and gets its own error if that fails too.
    }
    return new Set(unwritten);
  }

  /**
   * Tracks a result that is pending while the next flushes run, so that `drained` can wait for it. A row that another
   * transaction has locked therefore does not delay the other jobs.
   */
  #track<Answer>(answer: Promise<Answer>): Promise<Answer> {
    const tracked = answer.finally(() => this.#pendingResults.delete(tracked));
    this.#pendingResults.add(tracked);
    return tracked;
  }

  async #decideUnderLock(item: Settlement): Promise<SettleResult> {
    const { token, place, workerId, transaction } = receiptOf(item);
    const decide = (row: Row): RowDecision<SettleResult> => {
      if (row.token !== token) {
        // The job waits at its previous position (`place`). No other process knows this position, so our own statement
        // put it there before the connection died.
        const isRequeued = item.status === "queued" && row.status === "queued" && row.token === place;
        return { change: null, answer: isRequeued ? "applied" : "lost" };
      }
      if (isTakenOver(row, { workerId })) return { change: null, answer: "lost" };
      if (row.status === "complete" && transaction) return { change: null, answer: "finished" };
      // The row has our token and the job has ended, so our statement was carried out before the connection died.
      if (row.status === item.status && row.status !== "queued") return { change: null, answer: "applied" };
      if (row.status === "aborting") {
        // After an abort was requested, "aborted" is the only allowed status, whatever the task returned or threw.
        const job = read(row);
        const change = encodeChange(
          finishedFields("aborted", this.session.pool.clock.now(), { error: job?.error ?? null }),
        );
        const keep = keepSeconds(job?.ttl ?? 0, "aborted", this.failedTtl);
        return { change: { status: "aborted", ...change, keep }, answer: "aborted" };
      }
      if (row.status !== "active") return { change: null, answer: "lost" };
      const charged =
        item.charge === 0 ? {} : { attempts: Math.max((read(row)?.attempts ?? 0) + item.charge, 0) };
      const extra = encodeChange(charged);
      return {
        change: {
          status: item.status,
          patch: mergePatches(item.patch, extra.patch),
          removed: [...item.removed, ...extra.removed],
          ...(item.status === "queued" ? { scheduled: item.scheduled, place } : { keep: item.keep }),
        },
        answer: "applied",
      };
    };
    const found = await this.rows.changeWhenFree(item.key, decide, settleTimeoutMs);
    // If the row is missing, our own statement has deleted it (ttl < 0) and its response was lost, or another process
    // has.
    const answer = found ?? (item.keep !== null && item.keep < 0 ? "applied" : "gone");
    if ((answer !== "lost" && answer !== "gone") || !transaction) return answer;
    // The task's own transaction may have deleted the row. Since then, a job with the same key may have been enqueued.
    return (await this.finisher.hasCommitted(transaction)) ? "finished" : answer;
  }
}

const unrecordedError = ({ key, status, receipt }: Settlement, cause: unknown): SaqError =>
  new SaqError(
    "unrecorded",
    receiptOf({ receipt }).transaction === null
      ? `The end of job ${key} (${status}) could not be recorded, so its row still says that the job runs. This ` +
          "worker puts the job back into the queue as soon as it can; if this worker ends first, another worker does " +
          "so. The job may run again."
      : `Could not find out whether the transaction in which the task finished job ${key} has committed. If it has, ` +
          "the job is complete; if not, it runs again.",
    { cause },
  );
