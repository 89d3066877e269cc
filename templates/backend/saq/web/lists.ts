/**
 * Reads lists of a queue's jobs. After a list was too slow, the same list is not read again for a while. Otherwise
 * every open page would repeat it every two seconds, and the database would do nothing else.
 */
import type { JobFilter } from "../broker.js";
import { needsLook } from "../core/job-selection.js";
import { SaqError } from "../errors.js";
import type { WebJob, WebQueue } from "./queue.js";

/** How long the error of a list that was too slow is thrown again without a new read, in ms. */
const pauseMs = 30_000;

interface Refusal {
  error: SaqError;
  /** Time by performance.now(), in ms. */
  until: number;
}

export class Lists {
  readonly #refusals = new Map<string, Refusal>();

  /**
   * Returns the jobs of a queue that match a filter.
   *
   * @throws SaqError list_too_slow, also while a previous failure of the same list is remembered
   */
  async of(queue: WebQueue, filter: Partial<JobFilter>): Promise<WebJob[]> {
    // Without the texts that are searched: another text is not found any faster.
    const { statuses = [], due = null } = filter;
    const id = JSON.stringify([queue.name, [...new Set(statuses)].sort(), due, needsLook(filter)]);
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
