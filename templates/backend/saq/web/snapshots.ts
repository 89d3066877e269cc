/**
 * Caches the counts and workers of each queue for all open pages. A count reads a whole table, and every open page
 * polls every two seconds.
 */
import type { WebQueue } from "./queue.js";

/** Maximum age of a snapshot that is returned, in ms. */
const maxAgeMs = 2_000;

interface Snapshot {
  info: Promise<object>;
  /** Time by performance.now() at which the read was complete, in ms; null while all callers still wait for it. */
  completedAt: number | null;
}

export class Snapshots {
  readonly #byQueue = new Map<WebQueue, Snapshot>();

  /** Returns the queue's info object, at most two seconds old. */
  of(queue: WebQueue): Promise<object> {
    const known = this.#byQueue.get(queue);
    if (known && (known.completedAt === null || performance.now() - known.completedAt < maxAgeMs)) {
      return known.info;
    }
    const snapshot: Snapshot = { info: queue.info(), completedAt: null };
    this.#byQueue.set(queue, snapshot);
    snapshot.info.then(
      () => {
        snapshot.completedAt = performance.now();
      },
      () => this.#forget(queue, snapshot),
    );
    return snapshot.info;
  }

  /** Drops the queue's snapshot after a change, so that the page that made the change sees it. */
  forget(queue: WebQueue): void {
    this.#byQueue.delete(queue);
  }

  #forget(queue: WebQueue, snapshot: Snapshot): void {
    if (this.#byQueue.get(queue) === snapshot) this.#byQueue.delete(queue);
  }
}
