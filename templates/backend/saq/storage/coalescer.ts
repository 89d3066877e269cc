/**
 * Sends many calls in few statements. A call is sent at once if no flush is in progress, or fewer than `maxFlushes`.
 * Other calls are sent together in the next flush. There is no timer, so a single call does not wait for others
 * (measured: 8,960 -> 45,000 inserts/s with 50 calls in flight, no loss with one). With two flushes in progress, calls
 * of the second one may be carried out first if the first one has to be sent again.
 */
import type { Decided } from "../broker.js";

export interface CoalescerOptions<Item, Answer> {
  maxItems: number;
  maxBytes: number;
  /**
   * Maximum number of flushes in progress. With two, the server works on one while this process makes the next.
   * @defaultValue 1
   */
  maxFlushes?: number;
  bytesOf: (item: Item) => number;
  /** Two items with the same identity must not be in the same flush. The later item waits for the next flush. */
  identityOf?: (item: Item) => string;
  /**
   * Returns the answer for `duplicate`, an item with the same identity that was waiting when `item` was sent. Returns
   * undefined if the duplicate has to be sent itself. Without this, 20,000 calls with one key are 20,000 statements.
   */
  answerDuplicate?: (answer: Answer, item: Item, duplicate: Item) => Answer | undefined;
  /**
   * Returns "halves" if only some items may have caused the error: the flush is halved until these items are found.
   * Returns null if all items have failed.
   */
  splitOnError: (error: unknown) => "halves" | null;
  /** Returns the error with which an item is rejected. */
  failureOf?: (item: Item, error: unknown) => unknown;
  /** When a failed flush is sent again. If omitted: never. */
  retry?: RetryRules;
}

/** When a failed flush is sent again. Every call has its own deadline. */
export interface RetryRules {
  /**
   * Timeout of a call, ms. It counts from the call, or from the last flush that succeeded if that was later: a call
   * that waits in a long queue has not failed.
   */
  timeoutMs: number;
  /** Returns true if the flush may succeed when it is sent again. */
  isTransient: (error: unknown) => boolean;
  /** Returns the wait after a failed try, ms. `tries` is the number of tries before that one. */
  waitMs: (tries: number) => number;
  pause: (ms: number) => Promise<void>;
  /** Returns the error for a call that was never sent. */
  timeoutError: () => unknown;
}

/** How often the items of one flush were sent before. Every try of a flush gets the same object. */
export interface Tries {
  count: number;
}

type Flush<Item, Answer> = (items: Item[], tries: Tries) => Promise<(Answer | Promise<Answer>)[]>;

/** Interval at which waiting calls are checked for a deadline that has passed, ms. */
const deadlineCheckMs = 250;

/** Calls that wait, or that are sent together. The same index in each array belongs to the same call. */
class Batch<Item, Answer> {
  constructor(
    readonly items: Item[] = [],
    readonly decided: Decided<Answer>[] = [],
    /** When each call was made, by performance.now(). */
    readonly calledAt: number[] = [],
    /** For each item: the calls with its identity that waited when it was sent. */
    readonly duplicates: (Batch<Item, Answer> | undefined)[] = [],
  ) {}

  add(item: Item, decided: Decided<Answer>, calledAt: number): void {
    this.items.push(item);
    this.decided.push(decided);
    this.calledAt.push(calledAt);
  }

  append({ items, decided, calledAt }: Batch<Item, Answer>): void {
    for (const [index, item] of items.entries())
      this.add(item, decided[index] as Decided<Answer>, calledAt[index] as number);
  }

  /** Removes the first `count` calls and returns them. */
  cut(count: number): Batch<Item, Answer> {
    return new Batch(
      this.items.splice(0, count),
      this.decided.splice(0, count),
      this.calledAt.splice(0, count),
      this.duplicates.splice(0, count),
    );
  }

  slice(from: number, to: number): Batch<Item, Answer> {
    const { items, decided, calledAt, duplicates } = this;
    return new Batch(
      items.slice(from, to),
      decided.slice(from, to),
      calledAt.slice(from, to),
      duplicates.slice(from, to),
    );
  }

  /** Returns the calls for which `isFirst` is true, and the others. */
  split(isFirst: (calledAt: number) => boolean): [Batch<Item, Answer>, Batch<Item, Answer>] {
    const parts: [Batch<Item, Answer>, Batch<Item, Answer>] = [new Batch(), new Batch()];
    for (const [index, item] of this.items.entries()) {
      const calledAt = this.calledAt[index] as number;
      const part = parts[isFirst(calledAt) ? 0 : 1];
      part.duplicates[part.items.length] = this.duplicates[index];
      part.add(item, this.decided[index] as Decided<Answer>, calledAt);
    }
    return parts;
  }
}

export class Coalescer<Item, Answer> {
  readonly #flush: Flush<Item, Answer>;
  readonly #options: CoalescerOptions<Item, Answer>;
  #waiting = new Batch<Item, Answer>();
  /** By identity of an item that waits or is being sent: the calls that wait behind the item. Null: there are none. */
  readonly #queuedByIdentity = new Map<string, Batch<Item, Answer> | null>();
  readonly #runs = new Set<Promise<void>>();
  /** True until the calls of this turn of the event loop are sent. */
  #isStarting = false;
  #deadlineTimer: NodeJS.Timeout | null = null;
  /**
   * performance.now(), updated by `#deadlineTimer`. To read the clock for every call would cost more than the call.
   */
  #now = 0;
  #succeededAt = Number.NEGATIVE_INFINITY;

  /**
   * `flush` returns its answers in the order of the items. An answer that takes longer may be a promise; the next flush
   * does not wait for it.
   */
  constructor(flush: Flush<Item, Answer>, options: CoalescerOptions<Item, Answer>) {
    this.#flush = flush;
    this.#options = options;
  }

  get pending(): number {
    return this.#waiting.items.length;
  }

  add(item: Item): Promise<Answer> {
    return new Promise((resolve, reject) => this.put(item, { resolve, reject }));
  }

  /** Like `add`, but calls `decided` instead of creating a promise for each item. */
  put(item: Item, decided: Decided<Answer>): void {
    if (!this.#deadlineTimer && this.#options.retry) this.#startDeadlineTimer();
    this.#enqueue(item, decided, this.#now);
    if (!this.#isStarting && this.#runs.size < (this.#options.maxFlushes ?? 1)) this.#startRun();
  }

  /** Resolves when nothing waits and no flush is in progress. Answers that are promises may still be pending. */
  async drained(): Promise<void> {
    while (this.#runs.size > 0) await Promise.all(this.#runs);
  }

  #enqueue(item: Item, decided: Decided<Answer>, calledAt: number): void {
    const { identityOf } = this.#options;
    if (!identityOf) {
      this.#waiting.add(item, decided, calledAt);
      return;
    }
    const identity = identityOf(item);
    const queued = this.#queuedByIdentity.get(identity);
    if (queued === undefined) {
      this.#queuedByIdentity.set(identity, null);
      this.#waiting.add(item, decided, calledAt);
    } else if (queued === null) {
      this.#queuedByIdentity.set(identity, new Batch([item], [decided], [calledAt]));
    } else queued.add(item, decided, calledAt);
  }

  #startRun(): void {
    this.#isStarting = true;
    // At once, not in a later microtask: a call that is made between would not start the next run.
    const run: Promise<void> = this.#run(() => this.#runs.delete(run));
    this.#runs.add(run);
  }

  async #run(onEnd: () => void): Promise<void> {
    // Calls of the same turn of the event loop, for example of one Promise.all, are sent together.
    await new Promise((resolve) => setImmediate(resolve));
    this.#isStarting = false;
    while (this.pending > 0) await this.#send(this.#takeBatch(), { count: 0 });
    onEnd();
  }

  #takeBatch(): Batch<Item, Answer> {
    const { maxItems, maxBytes, bytesOf, identityOf } = this.#options;
    const waiting = this.#waiting;
    const { items } = waiting;
    let count = 0;
    for (let bytes = 0; count < items.length && count < maxItems; count++) {
      bytes += bytesOf(items[count] as Item);
      if (count > 0 && bytes > maxBytes) break;
    }
    const batch = count < items.length ? waiting.cut(count) : waiting;
    if (batch === waiting) this.#waiting = new Batch();
    if (identityOf) this.#takeDuplicates(batch, identityOf);
    return batch;
  }

  /**
   * Moves the calls that wait behind these items into `duplicates`. Calls that are made later are not moved, because
   * only a later flush may answer them.
   */
  #takeDuplicates({ items, duplicates }: Batch<Item, Answer>, identityOf: (item: Item) => string): void {
    for (const [index, item] of items.entries()) {
      const identity = identityOf(item);
      const queued = this.#queuedByIdentity.get(identity);
      if (!queued) continue;
      duplicates[index] = queued;
      this.#queuedByIdentity.set(identity, null);
    }
  }

  async #send(batch: Batch<Item, Answer>, tries: Tries): Promise<void> {
    const { retry, splitOnError } = this.#options;
    for (let remaining = batch; remaining.items.length > 0; ) {
      try {
        const answers = await this.#flush(remaining.items, tries);
        if (retry) this.#succeededAt = performance.now();
        this.#answer(remaining, answers);
        return;
      } catch (error) {
        const size = Math.ceil(remaining.items.length / 2);
        if (retry?.isTransient(error)) remaining = await this.#waitForRetry(retry, remaining, tries, error);
        else if (remaining.items.length > 1 && splitOnError(error)) {
          await this.#send(remaining.slice(0, size), { count: 0 });
          await this.#send(remaining.slice(size, remaining.items.length), { count: 0 });
          return;
        } else {
          this.#failAll(remaining, error);
          return;
        }
      }
    }
  }

  /** Rejects the calls whose deadline has passed. Then waits, and returns the other calls, which may be sent again. */
  async #waitForRetry(
    retry: RetryRules,
    batch: Batch<Item, Answer>,
    tries: Tries,
    error: unknown,
  ): Promise<Batch<Item, Answer>> {
    const [timedOut, remaining] = batch.split((calledAt) => this.#isTimedOut(calledAt, retry));
    this.#failAll(timedOut, error);
    if (remaining.items.length === 0) return remaining;
    const oldest = remaining.calledAt.reduce((one, other) => Math.min(one, other));
    const timeLeft = this.#deadline(oldest, retry) - performance.now();
    await retry.pause(Math.min(retry.waitMs(tries.count++), Math.max(timeLeft, 1)));
    return remaining;
  }

  #deadline(calledAt: number, { timeoutMs }: RetryRules): number {
    return Math.max(calledAt, this.#succeededAt) + timeoutMs;
  }

  #isTimedOut(calledAt: number, retry: RetryRules): boolean {
    return performance.now() >= this.#deadline(calledAt, retry);
  }

  #answer(batch: Batch<Item, Answer>, answers: (Answer | Promise<Answer>)[]): void {
    const { items, decided } = batch;
    const mayHaveDuplicates = Boolean(this.#options.identityOf);
    // By index: an iterator over entries creates an array for each item.
    for (let index = 0; index < items.length; index++) {
      const answer = answers[index] as Answer | Promise<Answer>;
      const callbacks = decided[index] as Decided<Answer>;
      const isPending = answer instanceof Promise;
      if (isPending) this.#answerWhenReady(items[index] as Item, callbacks, answer);
      else resolveSafely(callbacks, answer);
      if (mayHaveDuplicates) this.#release(batch, index, isPending ? undefined : answer);
    }
  }

  #failAll(batch: Batch<Item, Answer>, error: unknown): void {
    for (const [index, item] of batch.items.entries()) {
      this.#fail(item, batch.decided[index] as Decided<Answer>, error);
      this.#release(batch, index);
    }
  }

  /**
   * Called when an item is decided. Answers its duplicates if possible. Adds the first of the other calls with its
   * identity to the calls that wait for the next flush.
   */
  #release({ items, duplicates }: Batch<Item, Answer>, index: number, answer?: Answer): void {
    const { identityOf } = this.#options;
    if (!identityOf) return;
    const item = items[index] as Item;
    const identity = identityOf(item);
    const queued = this.#queuedByIdentity.get(identity);
    const unanswered = duplicates[index] && this.#answerDuplicates(item, duplicates[index], answer);
    this.#queuedByIdentity.delete(identity);
    const rest = unanswered ?? queued;
    if (!rest || rest.items.length === 0) return;
    if (unanswered && queued) unanswered.append(queued);
    this.#waiting.append(rest.cut(1));
    this.#queuedByIdentity.set(identity, rest.items.length > 0 ? rest : null);
  }

  /** Answers duplicates of an item. Returns those that have to be sent themselves; undefined if there are none. */
  #answerDuplicates(
    item: Item,
    duplicates: Batch<Item, Answer>,
    answer: Answer | undefined,
  ): Batch<Item, Answer> | undefined {
    const { answerDuplicate } = this.#options;
    if (!answerDuplicate || answer === undefined) return duplicates;
    const unanswered = new Batch<Item, Answer>();
    for (const [index, duplicate] of duplicates.items.entries()) {
      const decided = duplicates.decided[index] as Decided<Answer>;
      const ownAnswer = answerDuplicate(answer, item, duplicate);
      if (ownAnswer === undefined) unanswered.add(duplicate, decided, duplicates.calledAt[index] as number);
      else resolveSafely(decided, ownAnswer);
    }
    return unanswered.items.length > 0 ? unanswered : undefined;
  }

  #startDeadlineTimer(): void {
    this.#now = performance.now();
    this.#deadlineTimer = setInterval(() => {
      if (this.#runs.size > 0) return this.#failUnsent();
      if (this.#deadlineTimer) clearInterval(this.#deadlineTimer);
      this.#deadlineTimer = null;
    }, deadlineCheckMs).unref();
  }

  /** Rejects waiting calls whose deadline has passed, so that they fail in time even if the flush gets no answer. */
  #failUnsent(): void {
    this.#now = performance.now();
    const { retry } = this.#options;
    const { calledAt } = this.#waiting;
    if (!retry || calledAt.length === 0 || !this.#isTimedOut(calledAt[0] as number, retry)) return;
    const [timedOut, remaining] = this.#waiting.split((at) => this.#isTimedOut(at, retry));
    this.#waiting = remaining;
    this.#failAll(timedOut, retry.timeoutError());
  }

  #answerWhenReady(item: Item, decided: Decided<Answer>, answer: Promise<Answer>): void {
    answer.then(
      (value) => resolveSafely(decided, value),
      (error: unknown) => this.#fail(item, decided, error),
    );
  }

  #fail(item: Item, decided: Decided<Answer>, error: unknown): void {
    try {
      decided.reject(this.#options.failureOf?.(item, error) ?? error);
    } catch (thrown) {
      throwUncaught(thrown);
    }
  }
}

function resolveSafely<Answer>(decided: Decided<Answer>, answer: Answer): void {
  try {
    decided.resolve(answer);
  } catch (error) {
    throwUncaught(error);
  }
}

/**
 * Throws the error as an uncaught exception. If the caller's `resolve` or `reject` throws (a logger of the application,
 * for example), neither the statement nor the other items have failed.
 */
function throwUncaught(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}
