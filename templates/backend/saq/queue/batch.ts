/**
 * Scopes whose jobs belong together: when a scope throws, the jobs that it stored are aborted (Q-7, D-60). Only its
 * own: what others enqueue meanwhile, and jobs that were there before, are none of its business.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { SaqError } from "../errors.js";

/** A job as it was stored: `queued` tells it from a later one of the same key. */
export interface StoredMark {
  key: string;
  queued: number;
}

class Batch {
  readonly #parent: Batch | undefined;
  readonly #stored = new Map<string, number>();
  readonly #pending = new Set<Promise<void>>();

  constructor(parent: Batch | undefined) {
    this.#parent = parent;
  }

  /** What `storing` answers belongs to this scope, and to those around it. */
  include(storing: Promise<readonly StoredMark[]>): void {
    for (let scope: Batch | undefined = this; scope; scope = scope.#parent) scope.#add(storing);
  }

  #add(storing: Promise<readonly StoredMark[]>): void {
    const added = storing
      .then((marks) => {
        for (const { key, queued } of marks) this.#stored.set(key, queued);
      })
      .finally(() => this.#pending.delete(added));
    this.#pending.add(added);
  }

  /** Also what is still being stored: an enqueue beside the one that threw may be under way. */
  async stored(): Promise<readonly StoredMark[]> {
    while (this.#pending.size > 0) await Promise.allSettled(this.#pending);
    return Array.from(this.#stored, ([key, queued]) => ({ key, queued }));
  }
}

export class Batches {
  /** Made by the first batch, because following asynchronous calls costs all of them something. */
  #scopes: AsyncLocalStorage<Batch> | null = null;

  /** The scope that the running code is in. */
  get current(): Batch | undefined {
    return this.#scopes?.getStore();
  }

  /** @throws what `work` throws; SaqError not_aborted, caused by it, when some of the jobs could not be aborted */
  async run<T>(work: () => Promise<T>, abort: (job: StoredMark) => Promise<unknown>): Promise<T> {
    this.#scopes ??= new AsyncLocalStorage();
    const batch = new Batch(this.current);
    try {
      return await this.#scopes.run(batch, work);
    } catch (error) {
      const failed: string[] = [];
      for (const job of await batch.stored()) await abort(job).catch(() => failed.push(job.key));
      if (failed.length === 0) throw error;
      throw new SaqError(
        "not_aborted",
        `A batch failed (see cause), and ${failed.length} of its jobs could not be aborted and may run: ` +
          `${failed.slice(0, 10).join(", ")}${failed.length > 10 ? " ..." : ""}. Abort them with queue.abort(key)`,
        { cause: error },
      );
    }
  }
}
