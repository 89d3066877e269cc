/**
 * Scopes whose jobs belong together: when a scope throws, the jobs that it stored are aborted (Q-7, D-60). Only its
 * own: what others enqueue meanwhile, and jobs that were there before, are none of its business.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { SaqError } from "./errors.js";

class Batch {
  readonly #parent: Batch | undefined;
  readonly #stored = new Set<string>();
  readonly #pending = new Set<Promise<void>>();

  constructor(parent: Batch | undefined) {
    this.#parent = parent;
  }

  /** The keys that `storing` answers belong to this scope, and to those around it. */
  include(storing: Promise<readonly string[]>): void {
    for (let scope: Batch | undefined = this; scope; scope = scope.#parent) scope.#add(storing);
  }

  #add(storing: Promise<readonly string[]>): void {
    const added = storing
      .then((keys) => {
        for (const key of keys) this.#stored.add(key);
      })
      .finally(() => this.#pending.delete(added));
    this.#pending.add(added);
  }

  /** Also what is still being stored: an enqueue beside the one that threw may be under way. */
  async keys(): Promise<readonly string[]> {
    while (this.#pending.size > 0) await Promise.allSettled(this.#pending);
    return [...this.#stored];
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
  async run<T>(work: () => Promise<T>, abort: (key: string) => Promise<unknown>): Promise<T> {
    this.#scopes ??= new AsyncLocalStorage();
    const batch = new Batch(this.current);
    try {
      return await this.#scopes.run(batch, work);
    } catch (error) {
      const failed: string[] = [];
      for (const key of await batch.keys()) await abort(key).catch(() => failed.push(key));
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
