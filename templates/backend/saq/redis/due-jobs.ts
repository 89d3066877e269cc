/**
 * Wakes a worker when jobs are due. Waits for the list of due jobs on a connection of its own. BLMOVE from the head of
 * the list to its head does not change the list. It returns as soon as the list has a job, also one of a Python
 * program. Only the scripts of a claim take jobs.
 */
import { backoffMs } from "../core/backoff.js";
import { sleep } from "../timers.js";
import type { RedisConnection } from "./connection.js";

/** Maximum time of one blocking call, s. A call without an end would not notice that its connection is dead. */
const blockSeconds = 5;
/** How much longer than `blockSeconds` a response may take before the connection is replaced, ms. */
const responseMs = 3_000;
/** The worker was woken and did not claim for this long: it has no free slot. Then it is woken again, ms. */
const rearmMs = 1_000;

export class DueJobs {
  readonly #stopped = new AbortController();
  #isUp = false;
  /** Ends the wait for the next claim. */
  #rearm: () => void = () => {};
  #close: () => void = () => {};

  constructor(
    private readonly connection: RedisConnection,
    private readonly list: string,
    private readonly wake: () => void,
    /** Called before `wake` with the id of the first due job. */
    private readonly onFound: (id: string) => void,
  ) {}

  get isUp(): boolean {
    return this.#isUp;
  }

  /** Resolves when the connection is open. Goes on until `stop`. */
  async start(): Promise<void> {
    const waiter = await this.connection.openWaiter();
    this.#isUp = true;
    this.#close = waiter.close;
    void this.#run(waiter);
  }

  stop(): void {
    this.#stopped.abort();
    this.#rearm();
    this.#close();
  }

  /** Called when a claim has found no more jobs: wait for the next one. */
  onEmptyClaim(): void {
    this.#rearm();
  }

  async #run(first: Awaited<ReturnType<RedisConnection["openWaiter"]>>): Promise<void> {
    let waiter: typeof first | null = first;
    for (let failures = 0; !this.#isStopped; ) {
      try {
        if (!waiter) {
          waiter = await this.connection.openWaiter();
          // `stop` has closed the previous connection, and does not know this one.
          if (this.#isStopped) break;
          this.#close = waiter.close;
          // Jobs may have been pushed while there was no connection.
          this.wake();
        }
        this.#isUp = true;
        const found = await waiter.send(
          ["BLMOVE", this.list, this.list, "LEFT", "LEFT", String(blockSeconds)],
          blockSeconds * 1_000 + responseMs,
        );
        failures = 0;
        if (found === null || this.#isStopped) continue;
        this.onFound(String(found));
        await this.#wakeAndWait();
      } catch {
        this.#isUp = false;
        waiter?.close();
        waiter = null;
        if (!this.#isStopped && !this.connection.isClosed)
          await sleep(backoffMs(failures++), this.#stopped.signal);
        if (this.connection.isClosed) break;
      }
    }
    waiter?.close();
    this.#isUp = false;
  }

  get #isStopped(): boolean {
    return this.#stopped.signal.aborted;
  }

  /** Wakes the worker, and resolves when a claim has emptied the list: until then the list would wake at once. */
  async #wakeAndWait(): Promise<void> {
    const rearmed = new AbortController();
    this.#rearm = () => rearmed.abort();
    this.wake();
    // Not AbortSignal.any with `#stopped`: in Node.js 20, each call leaves an entry behind at the signal that lives
    // longer.
    if (!this.#isStopped) await sleep(rearmMs, rearmed.signal);
  }
}
