/**
 * Waits for jobs. All waits of a queue share one loop. The broker's events say which jobs have changed, and one
 * statement then reads all of these jobs. Changes without an event (workers in other languages, poll mode, events lost
 * with a connection) are found by polling: 50 ms after the wait began, then at growing intervals of up to 500 ms. If
 * there is no wait, nothing is read.
 */

import type { Broker, JobEvent, JobReply } from "../broker.js";
import { isTerminal } from "../core/job.js";
import type { StoredJob } from "../core/stored-job.js";
import { JobGoneError, SaqError, TimeoutError } from "../errors.js";
import { longestTimerMs } from "../timers.js";

type Row = StoredJob | null;

const firstPauseMs = 50;
const maxPauseMs = 500;
/** If reads fail for longer than this, ms, the wait fails. A shorter outage does not end it. */
const readFailureTimeoutMs = 30_000;
const maxKeysPerRead = 1_000;

interface Wait {
  readonly keys: readonly string[];
  readonly onRows: (rows: Row[]) => void;
  readonly onError: (error: Error) => void;
  /** Called with the result, if it was sent together with the job's end. */
  readonly onResult: ((result: string) => void) | undefined;
  /** Time until the next read if no event comes, ms. */
  pauseMs: number;
  /** Time of the next read by polling, by performance.now(). */
  nextReadAt: number;
  /** End of the timeout, by performance.now(). */
  readonly deadline: number;
  /** s */
  readonly timeout: number | null;
}

export interface WaitOptions {
  /** s; 0 and null: no limit. */
  timeout: number | null;
  /** True if the jobs may have changed already. Then the first read is made at once. */
  readNow: boolean;
}

/** A wait for the end of one job. `stop` ends the wait; `end` then stays pending forever. */
export interface AwaitedEnd<End> {
  readonly end: Promise<End>;
  stop(): void;
}

export class JobWaiter {
  readonly #broker: Broker;
  readonly #waits = new Set<Wait>();
  readonly #waitsByKey = new Map<string, Set<Wait>>();
  #due = new Set<Wait>();
  #reading: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;
  #timerAt = Number.POSITIVE_INFINITY;
  #subscription: Promise<() => Promise<void>> | null = null;
  #replyAddress: string | null = null;
  #closed = false;
  #readsFailSince: number | null = null;
  #lastError: unknown;

  constructor(broker: Broker) {
    this.#broker = broker;
  }

  /**
   * Subscribes to events, and resolves when they are received. Call it before the enqueue or the read. The subscription
   * lasts as long as the queue is open, so that a wait needs no LISTEN of its own. Also resolves if subscribing fails.
   * Waits then find changes only by polling, and the next call subscribes again.
   */
  async subscribe(): Promise<void> {
    this.#subscription ??= this.#subscribe();
    const subscription = this.#subscription;
    await subscription.catch(() => {
      if (this.#subscription === subscription) this.#subscription = null;
    });
  }

  /**
   * The address to which workers send the ends and results of jobs that this process enqueued and waits for. Null
   * before `subscribe`, and in poll mode.
   */
  get replyAddress(): string | null {
    return this.#replyAddress;
  }

  async #subscribe(): Promise<() => Promise<void>> {
    const unsubscribe = await this.#broker.onJobEvents((event) => this.#onEvent(event));
    try {
      this.#replyAddress = await this.#broker.openReplyChannel((reply) => this.#onReply(reply));
      return unsubscribe;
    } catch (error) {
      await unsubscribe();
      throw error;
    }
  }

  /**
   * Waits until the job has ended. Reads the row after each event, because the job may have been queued again
   * meanwhile. If a result is sent together with the end, it is passed to `parseResult` instead. If `parseResult`
   * returns null, the row is read. Rejects with JobGoneError, TimeoutError, SaqError queue_closed, or the last error
   * after 30 s of failed reads.
   */
  waitForEnd<Result = never>(
    key: string,
    options: WaitOptions,
    parseResult?: (result: string) => Result | null,
  ): AwaitedEnd<StoredJob | Result> {
    let stop = () => {};
    const end = new Promise<StoredJob | Result>((resolve, reject) => {
      const wait = this.#addWait(
        [key],
        { ...options, pauseMs: firstPauseMs },
        ([row = null]) => {
          if (row && !isTerminal(row.status)) {
            wait.pauseMs = Math.min(1.5 * wait.pauseMs, maxPauseMs);
            return;
          }
          this.#remove(wait);
          if (row) resolve(row);
          else reject(new JobGoneError(key));
        },
        reject,
        parseResult &&
          ((text) => {
            const result = parseResult(text);
            if (result === null) return this.#readSoon(wait);
            this.#remove(wait);
            resolve(result);
          }),
      );
      stop = () => this.#remove(wait);
    });
    return { end, stop };
  }

  /**
   * Yields the rows as they are now, then after each change and every `interval` s. Changes that come while the caller
   * handles the previous rows are yielded together.
   */
  async *watch(
    keys: readonly string[],
    { timeout, interval }: { timeout: number | null; interval: number },
  ): AsyncGenerator<Row[]> {
    let latest: Row[] | null = null;
    let failure: Error | null = null;
    let wake = () => {};
    const options = { timeout, readNow: true, pauseMs: interval * 1_000 };
    const wait = this.#addWait(
      keys,
      options,
      (rows) => {
        latest = rows;
        wake();
      },
      (error) => {
        failure = error;
        wake();
      },
    );
    try {
      for (;;) {
        while (!latest && !failure) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        if (failure) throw failure;
        const rows: Row[] = latest ?? [];
        latest = null;
        yield rows;
      }
    } finally {
      this.#remove(wait);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const wait of this.#waits) this.#fail(wait, closedError(wait.keys));
    const unsubscribe = await this.#subscription?.catch(() => null);
    await unsubscribe?.();
  }

  #addWait(
    keys: readonly string[],
    { timeout, readNow, pauseMs }: WaitOptions & { pauseMs: number },
    onRows: Wait["onRows"],
    onError: Wait["onError"],
    onResult?: Wait["onResult"],
  ): Wait {
    const now = performance.now();
    const wait: Wait = {
      keys,
      onRows,
      onError,
      onResult,
      pauseMs,
      nextReadAt: readNow ? Number.POSITIVE_INFINITY : now + pauseMs,
      deadline: timeout ? now + timeout * 1_000 : Number.POSITIVE_INFINITY,
      timeout,
    };
    if (this.#closed) {
      onError(closedError(keys));
      return wait;
    }
    this.#waits.add(wait);
    for (const key of keys) {
      const waits = this.#waitsByKey.get(key);
      if (waits) waits.add(wait);
      else this.#waitsByKey.set(key, new Set([wait]));
    }
    if (readNow) this.#readSoon(wait);
    this.#setTimer(Math.min(wait.nextReadAt, wait.deadline));
    return wait;
  }

  #remove(wait: Wait): void {
    if (!this.#waits.delete(wait)) return;
    this.#due.delete(wait);
    for (const key of wait.keys) {
      const waits = this.#waitsByKey.get(key);
      waits?.delete(wait);
      if (waits?.size === 0) this.#waitsByKey.delete(key);
    }
    if (this.#waits.size > 0 || !this.#timer) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
  }

  #fail(wait: Wait, error: Error): void {
    this.#remove(wait);
    wait.onError(error);
  }

  #onEvent(event: JobEvent | null): void {
    // After a reconnect it is unknown which events were missed.
    for (const wait of event ? (this.#waitsByKey.get(event.key) ?? []) : this.#waits) this.#readSoon(wait);
  }

  /**
   * Handles the notification of a job's end. If it contains the result, the row need not be read: 4.4 -> 2.9 ms for a
   * single round trip, 3,500 -> 5,000/s with 50 in flight.
   */
  #onReply({ key, result }: JobReply): void {
    for (const wait of this.#waitsByKey.get(key) ?? []) {
      if (result !== null && wait.onResult) wait.onResult(result);
      else this.#readSoon(wait);
    }
  }

  #readSoon(wait: Wait): void {
    wait.nextReadAt = Number.POSITIVE_INFINITY;
    this.#due.add(wait);
    this.#reading ??= this.#readDue();
  }

  async #readDue(): Promise<void> {
    // Jobs with an event in the same turn of the event loop, for example all jobs of one settle statement, are read
    // together.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#due.size > 0) await this.#read(this.#takeDue());
    this.#reading = null;
  }

  #takeDue(): Wait[] {
    const taken: Wait[] = [];
    let keys = 0;
    for (const wait of this.#due) {
      if (taken.length > 0 && keys + wait.keys.length > maxKeysPerRead) break;
      keys += wait.keys.length;
      taken.push(wait);
      // Removed before the read, so that a job that changes during the read becomes due again.
      this.#due.delete(wait);
    }
    return taken;
  }

  async #read(waits: readonly Wait[]): Promise<void> {
    const keys = [...new Set(waits.flatMap((wait) => wait.keys))];
    let rows: Map<string, Row> | null = null;
    try {
      const read = await this.#broker.jobs(keys);
      rows = new Map(keys.map((key, index) => [key, read[index] ?? null]));
      this.#readsFailSince = null;
      this.#lastError = undefined;
    } catch (error) {
      this.#readsFailSince ??= performance.now();
      this.#lastError = error;
    }
    const hasFailedTooLong =
      this.#readsFailSince !== null && performance.now() - this.#readsFailSince > readFailureTimeoutMs;
    for (const wait of waits) {
      if (!this.#waits.has(wait)) continue;
      if (rows) wait.onRows(wait.keys.map((key) => rows.get(key) ?? null));
      else if (hasFailedTooLong) this.#fail(wait, this.#lastError as Error);
      if (!this.#waits.has(wait) || this.#due.has(wait)) continue;
      wait.nextReadAt = performance.now() + (rows ? wait.pauseMs : maxPauseMs);
      this.#setTimer(wait.nextReadAt);
    }
  }

  #setTimer(at: number): void {
    if (at >= this.#timerAt) return;
    if (this.#timer) clearTimeout(this.#timer);
    this.#timerAt = at;
    const ms = Math.min(Math.max(at - performance.now(), 0), longestTimerMs);
    this.#timer = setTimeout(() => this.#onTimer(), Math.ceil(ms));
  }

  #onTimer(): void {
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
    const now = performance.now();
    // Reads that are nearly due are made now: one statement instead of two.
    const soon = now + firstPauseMs / 2;
    let next = Number.POSITIVE_INFINITY;
    for (const wait of this.#waits) {
      if (wait.deadline <= now) {
        this.#fail(wait, new TimeoutError(wait.keys, wait.timeout ?? 0, { cause: this.#lastError }));
        continue;
      }
      if (wait.nextReadAt <= soon) this.#readSoon(wait);
      next = Math.min(next, wait.nextReadAt, wait.deadline);
    }
    this.#setTimer(next);
  }
}

function closedError(keys: readonly string[]): SaqError {
  const [awaited, consequence] =
    keys.length === 1
      ? [`job ${keys[0]}`, "The job goes on, and its result is kept for its ttl"]
      : [`${keys.length} jobs`, "The jobs go on, and each result is kept for the ttl of its job"];
  return new SaqError("queue_closed", `The queue was closed during the wait for ${awaited}. ${consequence}`);
}
