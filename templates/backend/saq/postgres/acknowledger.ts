/**
 * Ends of attempts, many per statement. Everything that finished while the last statement was in flight goes out as
 * the next one. A row that the statement did not change is looked at alone: it was aborted meanwhile, belongs to
 * somebody else by now, has a document that SQL cannot read, or is held by somebody's transaction. Where these are many
 * they are first sent again together.
 */
import type { Decided, Settlement, SettleResult, StoredJob } from "../broker.js";
import { bytesOf } from "../byte-size.js";
import { SaqError } from "../errors.js";
import { type Decision, finished, isTakenOver, keepSeconds, read } from "../transitions.js";
import { encodeChange } from "../wire.js";
import { Coalescer, type CoalescerOptions } from "./coalescer.js";
import { isCancelled, isDataError } from "./connection.js";
import { type Completion, EndWriter, isCompletion, type Write } from "./end-writer.js";
import type { Finisher } from "./finisher.js";
import { RecordedEnds } from "./recorded-ends.js";
import type { RowStore } from "./rows.js";
import type { PostgresServer } from "./server.js";

/** A finished job outlives a database that is away for minutes: the worker holds its result until it is recorded. */
export const keepPatienceMs = 10 * 60_000;

/**
 * A claim locks rows before it sees that another worker's claim has just taken them, and holds them to its own end, some
 * 10 ms later. That may be all that a batch of ends wants to write: one by one these took a second (two workers that
 * drained 20,000 jobs, every fifth time). More than so many are sent again together, after each of these pauses.
 */
const mostAlone = 10;
const pausesMs = [10, 20, 40, 80];
/** Tries in a row that wrote none: then it is no claim that stands in their way. */
const mostVain = 3;
/** Each of what is left has a patience of its own. */
const againPatienceMs = 1_000;

export class Acknowledger {
  readonly #coalescer: Coalescer<Settlement, SettleResult>;
  /** Completions whose document still ends as the claim has left it: most ends of most queues. */
  readonly #completions: Coalescer<Completion, SettleResult>;
  /** Completions whose row is deleted. */
  readonly #removals: Coalescer<Completion, SettleResult>;
  /** Ends that tasks have recorded in their own transactions: most only have to be confirmed. */
  readonly #confirmations: Coalescer<Settlement, SettleResult>;
  readonly #recorded: RecordedEnds;
  readonly #writer: EndWriter;
  /** What its statement has not written and is still seen to. */
  readonly #later = new Set<Promise<unknown>>();

  constructor(
    private readonly server: PostgresServer,
    private readonly rows: RowStore,
    private readonly finisher: Finisher,
    queueName: string,
    private readonly failedTtl: number,
  ) {
    this.#recorded = new RecordedEnds(server, queueName);
    this.#writer = new EndWriter(server, queueName);
    const options: CoalescerOptions<Settlement, SettleResult> = {
      maxItems: 1_000,
      maxBytes: 4 * 1024 * 1024,
      bytesOf: (item) => bytesOf(item.patch),
      searchAfter: (error) => (isDataError(error) || isCancelled(error) ? "halves" : null),
      failureOf: unrecorded,
    };
    // The statement answers by key: of two ends of one job only the first would be written, and both told so.
    this.#coalescer = new Coalescer(
      (items) => this.#record(items, (...sent) => this.#writer.settle(...sent)),
      {
        ...options,
        identityOf: ({ key }) => key,
      },
    );
    this.#completions = new Coalescer<Completion, SettleResult>(
      (items) => this.#record(items, (...sent) => this.#writer.complete(...sent)),
      options,
    );
    this.#removals = new Coalescer<Completion, SettleResult>(
      (items) => this.#record(items, (...sent) => this.#writer.remove(...sent)),
      options,
    );
    this.#confirmations = new Coalescer((items) => this.#confirm(items), options);
  }

  /** Rejects with SaqError unrecorded after ten minutes of tries, or when closed. */
  settle(settlement: Settlement, decided: Decided<SettleResult>): void {
    if (settlement.finishedIn !== null) this.#confirmations.put(settlement, decided);
    else if (!isCompletion(settlement)) this.#coalescer.put(settlement, decided);
    else if (settlement.keep !== null && settlement.keep < 0) this.#removals.put(settlement, decided);
    else this.#completions.put(settlement, decided);
  }

  async drained(): Promise<void> {
    // First, because what they cannot confirm goes to the others.
    await this.#confirmations.drained();
    await Promise.all([this.#coalescer.drained(), this.#completions.drained(), this.#removals.drained()]);
    while (this.#later.size > 0) await Promise.allSettled(this.#later);
  }

  /** What is not certain, because the transaction was rolled back or is still open, goes the way of all other ends. */
  async #confirm(items: Settlement[]): Promise<(SettleResult | Promise<SettleResult>)[]> {
    const results = await this.#recorded.of(items, keepPatienceMs);
    return items.map((item, index) => results[index] ?? this.#seeTo(this.#coalescer.add(item)));
  }

  async #record<Item extends Settlement>(
    items: Item[],
    write: Write<Item>,
  ): Promise<(SettleResult | Promise<SettleResult>)[]> {
    const written = await write(items, keepPatienceMs);
    const left = items.filter((_, index) => !written.each[index]);
    const together =
      left.length > mostAlone ? this.#seeTo(this.#recordTogether(left, written.resent, write)) : null;
    const decideLater = async (item: Item): Promise<SettleResult> =>
      (await together)?.get(item) ?? this.#decideUnderLock(item);
    return items.map((item, index) => (written.each[index] ? "applied" : this.#seeTo(decideLater(item))));
  }

  /** Answers the results of those that need no look of their own. */
  async #recordTogether<Item extends Settlement>(
    items: Item[],
    resent: boolean,
    write: Write<Item>,
  ): Promise<Map<Item, SettleResult>> {
    const results = new Map<Item, SettleResult>();
    let left = items;
    const lookAtRows = async () => {
      for (const [index, result] of (await this.#recorded.of(left, keepPatienceMs)).entries())
        if (result !== null) results.set(left[index] as Item, result);
      left = left.filter((item) => !results.has(item));
    };
    try {
      if (resent) await lookAtRows();
      if (left.length > mostAlone) {
        const again = await this.#writeAgain(left, write);
        for (const item of left) if (!again.has(item)) results.set(item, "applied");
        left = [...again];
      }
      if (left.length > mostAlone) await lookAtRows();
    } catch {
      // Each of them fails alone then, for a reason of its own.
    }
    return results;
  }

  /** Answers what it could not write either. */
  async #writeAgain<Item extends Settlement>(items: Item[], write: Write<Item>): Promise<Set<Item>> {
    let left = items;
    let vain = 0;
    try {
      for (const pauseMs of pausesMs) {
        await this.server.pause(pauseMs);
        const { each } = await write(left, againPatienceMs);
        vain = each.includes(true) ? 0 : vain + 1;
        left = left.filter((_, index) => !each[index]);
        if (left.length <= mostAlone || vain === mostVain) break;
      }
    } catch {
      // Each of them fails alone then, for a reason of its own.
    }
    return new Set(left);
  }

  /** Beside the next flushes: a row that somebody's transaction holds may not hold up the other jobs. */
  #seeTo<Answer>(answer: Promise<Answer>): Promise<Answer> {
    const seenTo = answer.finally(() => this.#later.delete(seenTo));
    this.#later.add(seenTo);
    return seenTo;
  }

  async #decideUnderLock(item: Settlement): Promise<SettleResult> {
    const decide = (row: StoredJob): Decision<SettleResult> => {
      if (row.token !== item.token) {
        // Waiting at its old place: our own statement put it there before the connection died. Nobody else knows it.
        const isBack = item.status === "queued" && row.status === "queued" && row.token === item.place;
        return { change: null, answer: isBack ? "applied" : "lost" };
      }
      if (isTakenOver(row, item)) return { change: null, answer: "lost" };
      if (row.status === "complete" && item.finishedIn) return { change: null, answer: "finished" };
      // Ours by its token and already ended: the statement went through before the connection died.
      if (row.status === item.status && row.status !== "queued") return { change: null, answer: "applied" };
      if (row.status === "aborting") {
        // Once an abort was asked for, only "aborted" is a legal end, whatever the task returned (D-25, W-15).
        const job = read(row);
        const change = encodeChange(finished("aborted", this.server.now(), { error: job?.error ?? null }));
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
          ...(item.status === "queued"
            ? { scheduled: item.scheduled, place: item.place }
            : { keep: item.keep }),
        },
        answer: "applied",
      };
    };
    const found = await this.rows.changeWhenFree(item.key, decide, keepPatienceMs);
    // A missing row was deleted by our own statement (ttl < 0) when the answer to it got lost, or by somebody else.
    const answer = found ?? (item.keep !== null && item.keep < 0 ? "applied" : "gone");
    if ((answer !== "lost" && answer !== "gone") || !item.finishedIn) return answer;
    // Deleted by the task's own transaction, or enqueued again under its key since.
    return (await this.finisher.hasCommitted(item.finishedIn)) ? "finished" : answer;
  }
}

const unrecorded = ({ key, status, finishedIn }: Settlement, cause: unknown): SaqError =>
  new SaqError(
    "unrecorded",
    finishedIn === null
      ? `The end of job ${key} (${status}) could not be recorded. Its row says that it still runs: this worker queues it ` +
          "again when it can, or other workers do when this one has ended, and it may run again."
      : `Could not find out whether the transaction in which the task finished job ${key} has committed. If it has, the ` +
          "job is complete; if not, it runs again.",
    { cause },
  );

const mergePatches = (one: string, two: string): string =>
  two === "{}" ? one : one === "{}" ? two : `${one.slice(0, -1)},${two.slice(1)}`;
