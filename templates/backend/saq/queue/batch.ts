/**
 * Scopes whose jobs belong together: if a scope throws, the jobs that it stored are aborted. Jobs that others enqueue
 * meanwhile, and jobs that existed before, are not touched.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { SaqError } from "../errors.js";

/** A job as it was enqueued. `queued` distinguishes it from a later job with the same key. */
export interface EnqueuedJob {
  key: string;
  queued: number;
}

class Batch {
  readonly #parent: Batch | undefined;
  readonly #queuedByKey = new Map<string, number>();
  readonly #pending = new Set<Promise<void>>();

  constructor(parent: Batch | undefined) {
    this.#parent = parent;
  }

  /** Adds the jobs that `enqueuing` resolves with to this scope, and to the scopes around it. */
  include(enqueuing: Promise<readonly EnqueuedJob[]>): void {
    for (let scope: Batch | undefined = this; scope; scope = scope.#parent) scope.#add(enqueuing);
  }

  #add(enqueuing: Promise<readonly EnqueuedJob[]>): void {
    const added = enqueuing
      .then((jobs) => {
        for (const { key, queued } of jobs) this.#queuedByKey.set(key, queued);
      })
      .finally(() => this.#pending.delete(added));
    this.#pending.add(added);
  }

  /** Returns the jobs of this scope. Waits for enqueues that are still under way beside the one that threw. */
  async jobs(): Promise<readonly EnqueuedJob[]> {
    while (this.#pending.size > 0) await Promise.allSettled(this.#pending);
    return Array.from(this.#queuedByKey, ([key, queued]) => ({ key, queued }));
  }
}

export class Batches {
  /** Created by the first batch, because tracking asynchronous calls makes all of them slower. */
  #scopes: AsyncLocalStorage<Batch> | null = null;

  /** The scope in which the current code runs. */
  get current(): Batch | undefined {
    return this.#scopes?.getStore();
  }

  /**
   * Runs `work` in a scope. If it throws, calls `abort` for each job that the scope stored, and throws the error again.
   *
   * @throws SaqError not_aborted, with the error of `work` as its cause, if some of the jobs could not be aborted
   */
  async run<T>(work: () => Promise<T>, abort: (job: EnqueuedJob) => Promise<unknown>): Promise<T> {
    this.#scopes ??= new AsyncLocalStorage();
    const batch = new Batch(this.current);
    try {
      return await this.#scopes.run(batch, work);
    } catch (error) {
      const failed: string[] = [];
      for (const job of await batch.jobs()) await abort(job).catch(() => failed.push(job.key));
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
