/**
 * Lists of a queue's jobs. One that took too long is not asked for again at once: every open page would repeat it every
 * two seconds, and the database would do nothing else.
 */
import type { JobFilter } from "../broker.js";
import { SaqError } from "../errors.js";
import type { WebJob, WebQueue } from "./queue.js";

/** How long the refusal of a list that took too long is repeated, ms. */
const pauseMs = 30_000;

interface Refusal {
  error: SaqError;
  /** By performance.now(). */
  until: number;
}

export class Lists {
  readonly #refusals = new Map<string, Refusal>();

  /** @throws SaqError list_too_slow */
  async of(queue: WebQueue, filter: Partial<JobFilter>): Promise<WebJob[]> {
    const id = JSON.stringify([queue.name, filter.statuses, filter.due]);
    const refusal = this.#refusals.get(id);
    if (refusal && performance.now() < refusal.until) throw refusal.error;
    this.#refusals.delete(id);
    try {
      return await queue.list(filter);
    } catch (error) {
      if (error instanceof SaqError && error.code === "list_too_slow") {
        this.#refusals.set(id, { error, until: performance.now() + pauseMs });
      }
      throw error;
    }
  }
}
