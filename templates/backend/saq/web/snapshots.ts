/**
 * Counts and workers of the queues, read once for all who look: counting reads a whole table, and every open page asks
 * every two seconds.
 */
import type { WebQueue } from "./queue.js";

/** How old a snapshot may be when it is shown, ms. */
const maxAgeMs = 2_000;

interface Snapshot {
  info: Promise<object>;
  /** When it was complete, by performance.now(); until then everybody waits for it. */
  completedAt: number | null;
}

export class Snapshots {
  readonly #byQueue = new Map<WebQueue, Snapshot>();

  /** The queue's info object, at most two seconds old. */
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

  /** After a change, so that the page that asked for it sees it. */
  forget(queue: WebQueue): void {
    this.#byQueue.delete(queue);
  }

  #forget(queue: WebQueue, snapshot: Snapshot): void {
    if (this.#byQueue.get(queue) === snapshot) this.#byQueue.delete(queue);
  }
}
