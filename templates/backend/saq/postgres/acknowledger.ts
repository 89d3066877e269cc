/**
 * Ends of attempts, many per statement. Everything that finished while the last statement was in flight goes out as
 * the next one. A row that the statement did not change is looked at alone: it was aborted meanwhile, belongs to
 * somebody else by now, has a document that SQL cannot read, or is held by somebody's transaction. Where these are many
 * they are first sent again together.
 */
import type { Decided, DocumentEnding, Settlement, SettleResult, StoredJob } from "../broker.js";
import { SaqError } from "../errors.js";
import { type Decision, finished, isTakenOver, keepSeconds, read } from "../transitions.js";
import { encodeChange } from "../wire.js";
import { endNotice } from "./channels.js";
import { Coalescer, type CoalescerOptions } from "./coalescer.js";
import { isCancelled, isDataError, isPassing } from "./connection.js";
import type { Persistence } from "./connections.js";
import type { Finisher } from "./finisher.js";
import { separator } from "./fragments.js";
import type { RowStore } from "./rows.js";
import type { PostgresServer } from "./server.js";

/** A finished job outlives a database that is away for minutes: the worker holds its result until it is recorded. */
const patienceMs = 10 * 60_000;

/**
 * A statement that is cancelled that often may be too long for the role's statement_timeout: then smaller ones. 0.3 s
 * of back-off in all.
 */
const mostCancelled = 3;

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

/** Sends one statement, for as long as `patience` in ms, and tells of each item whether it was written. */
type Write<Item> = (items: Item[], patience: number) => Promise<boolean[]>;

export class Acknowledger {
  readonly #coalescer: Coalescer<Settlement, SettleResult>;
  /** Completions whose document still ends as the claim has left it: most ends of most queues. */
  readonly #completions: Coalescer<Completion, SettleResult>;
  /** What its statement has not written and is still seen to. */
  readonly #later = new Set<Promise<unknown>>();

  constructor(
    private readonly server: PostgresServer,
    private readonly rows: RowStore,
    private readonly finisher: Finisher,
    private readonly queueName: string,
    private readonly failedTtl: number,
  ) {
    const options: CoalescerOptions<Settlement> = {
      maxItems: 1_000,
      maxBytes: 4 * 1024 * 1024,
      bytesOf: (item) => item.patch.length,
      searchAfter: (error) => (isDataError(error) || isCancelled(error) ? "halves" : null),
      failureOf: unrecorded,
    };
    // The statement answers by key: of two ends of one job only the first would be written, and both told so.
    this.#coalescer = new Coalescer((items) => this.#record(items, (...sent) => this.#settle(...sent)), {
      ...options,
      identityOf: ({ key }) => key,
    });
    this.#completions = new Coalescer<Completion, SettleResult>(
      (items) => this.#record(items, (...sent) => this.#complete(...sent)),
      options,
    );
  }

  /** Rejects with SaqError unrecorded after ten minutes of tries, or when closed. */
  settle(settlement: Settlement, decided: Decided<SettleResult>): void {
    if (isCompletion(settlement)) this.#completions.put(settlement, decided);
    else this.#coalescer.put(settlement, decided);
  }

  async drained(): Promise<void> {
    await Promise.all([this.#coalescer.drained(), this.#completions.drained()]);
    while (this.#later.size > 0) await Promise.allSettled(this.#later);
  }

  async #record<Item extends Settlement>(
    items: Item[],
    write: Write<Item>,
  ): Promise<(SettleResult | Promise<SettleResult>)[]> {
    const written = await write(items, patienceMs);
    // What its task has finished itself is written, and by no statement of ours.
    const left = items.filter(({ finishedIn }, index) => !written[index] && finishedIn === null);
    const again = new Set(left.length > mostAlone ? left : []);
    const stillLeft = again.size > 0 ? this.#seeTo(this.#writeAgain(left, write)) : null;
    const decideLater = async (item: Item): Promise<SettleResult> =>
      !again.has(item) || (await stillLeft)?.has(item) ? this.#decideUnderLock(item) : "applied";
    return items.map((item, index) => (written[index] ? "applied" : this.#seeTo(decideLater(item))));
  }

  /** Answers what it could not write either. */
  async #writeAgain<Item extends Settlement>(items: Item[], write: Write<Item>): Promise<Set<Item>> {
    let left = items;
    let vain = 0;
    try {
      for (const pauseMs of pausesMs) {
        await this.server.pause(pauseMs);
        const written = await write(left, againPatienceMs);
        vain = written.includes(true) ? 0 : vain + 1;
        left = left.filter((_, index) => !written[index]);
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

  async #settle(items: Settlement[], patience: number): Promise<boolean[]> {
    const applied = new Set<string>();
    const told = this.#told(items);
    const { settle, settleAndTell } = this.server.statements;
    const { rows } = await this.server.queryAgain<{ key: string }>(
      told.length > 0 ? settleAndTell : settle,
      [
        this.queueName,
        items.map((item) => item.key),
        items.map((item) => item.token),
        items.map((item) => item.place),
        items.map((item) => item.status),
        items.map((item) => item.patch),
        items.map((item) => `{${item.removed.join(",")}}`),
        items.map((item) => item.charge),
        items.map((item) => item.keep),
        items.map((item) => item.scheduled),
        items.map((item) => item.workerId),
        ...told,
      ],
      persistence(items.length, patience),
    );
    for (const { key } of rows) applied.add(key);
    return items.map(({ key }) => applied.has(key));
  }

  async #complete(items: Completion[], patience: number): Promise<boolean[]> {
    const claims = new Map<number, number>();
    const endings: DocumentEnding[] = [];
    const claimOf = ({ token, ending }: Completion): number => {
      const known = claims.get(token);
      if (known !== undefined) return known;
      const claim = endings.push(ending);
      claims.set(token, claim);
      return claim;
    };
    const told = this.#told(items);
    const { complete, completeAndTell } = this.server.statements;
    const { rows } = await this.server.queryAgain<{ written: string | null }>(
      told.length > 0 ? completeAndTell : complete,
      [
        this.queueName,
        items.map((item) => item.key).join(separator),
        items.map(claimOf).join(separator),
        // Each without its brace: it goes on where the ending's lasting part stops.
        items
          .map((item) => item.patch)
          .join(separator)
          .slice(1),
        items.map((item) => item.keep ?? "").join(separator),
        [...claims.keys()],
        endings.map(({ lasting, passing }) => Buffer.from(lasting + passing)),
        endings.map(({ passing }) => Buffer.byteLength(passing)),
        items.length,
        ...told,
      ],
      persistence(items.length, patience),
    );
    const written = rows[0]?.written ?? null;
    if (written === null) return Array<boolean>(items.length).fill(true);
    const places = new Set(written.split(","));
    return items.map((_, index) => places.has(String(index + 1)));
  }

  /** Texts and channels of what is told, by the statement that records the ends and of what it records; none where nobody waits. */
  #told(items: readonly Settlement[]): (string | null)[][] {
    if (items.every(({ awaited }) => awaited === false)) return [];
    const notices = items.map((item) => endNotice(this.queueName, item));
    return [notices.map(({ text }) => text), notices.map(({ channel }) => channel)];
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
    const found = await this.rows.changeWhenFree(item.key, decide, patienceMs);
    // A missing row was deleted by our own statement (ttl < 0) when the answer to it got lost, or by somebody else.
    const answer = found ?? (item.keep !== null && item.keep < 0 ? "applied" : "lost");
    if (answer !== "lost" || !item.finishedIn) return answer;
    // Deleted by the task's own transaction, or enqueued again under its key since.
    return (await this.finisher.hasCommitted(item.finishedIn)) ? "finished" : "lost";
  }
}

/** An end that only changes how the document ends, and can stand in a list of texts. */
type Completion = Settlement & { ending: DocumentEnding };

const isCompletion = (item: Settlement): item is Completion =>
  item.ending !== null &&
  item.status === "complete" &&
  item.finishedIn === null &&
  (item.keep === null || item.keep >= 0) &&
  !item.key.includes(separator);

/** Each row is written by its token, so that a second time changes nothing. */
const persistence = (items: number, patience: number): Persistence => ({
  patience,
  again: (error, sent) => isPassing(error) && !(isCancelled(error) && items > 1 && sent >= mostCancelled),
});

const unrecorded = ({ key, status }: Settlement, cause: unknown): SaqError =>
  new SaqError(
    "unrecorded",
    `The end of job ${key} (${status}) could not be recorded. Its row says that it still runs: others take it over ` +
      "when its timeout or heartbeat has passed, or when this worker has ended, and it may run again.",
    { cause },
  );

const mergePatches = (one: string, two: string): string =>
  two === "{}" ? one : one === "{}" ? two : `${one.slice(0, -1)},${two.slice(1)}`;
