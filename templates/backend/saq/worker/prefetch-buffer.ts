/** Claimed jobs that wait for a slot, in the order in which they will run. */
import type { ClaimedJob } from "../core/claim.js";

/** The jobs of one claim, the next job last: `pop()` takes it, and its memory can be freed as soon as it has run. */
interface Batch {
  readonly jobs: ClaimedJob[];
  /** When the jobs were claimed, by performance.now(). */
  readonly claimedAt: number;
}

export class PrefetchBuffer {
  readonly #batches: Batch[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** When the next job was claimed, by performance.now(). Infinity if there is no job. */
  get claimedAt(): number {
    return this.#batches[0]?.claimedAt ?? Number.POSITIVE_INFINITY;
  }

  /** Adds the jobs of one claim. `claimedAt`: when they were claimed, by performance.now(). */
  add(jobs: ClaimedJob[], claimedAt: number, where: "front" | "back"): void {
    if (jobs.length === 0) return;
    this.#size += jobs.length;
    const batch = { jobs: jobs.reverse(), claimedAt };
    if (where === "front") this.#batches.unshift(batch);
    else this.#batches.push(batch);
  }

  /** Removes the next job and returns it. */
  next(): ClaimedJob | undefined {
    const batch = this.#batches[0];
    if (!batch) return undefined;
    const job = batch.jobs.pop();
    if (batch.jobs.length === 0) this.#batches.shift();
    this.#size--;
    return job;
  }

  *claims(): Generator<ClaimedJob> {
    for (const { jobs } of this.#batches) yield* jobs;
  }

  /** Removes the jobs for which `isWanted` returns true, and returns them in their order. */
  take(isWanted: (job: ClaimedJob) => boolean): ClaimedJob[] {
    const taken: ClaimedJob[] = [];
    for (const { jobs, claimedAt } of this.#batches.splice(0)) {
      const kept: ClaimedJob[] = [];
      for (const job of jobs.reverse()) (isWanted(job) ? taken : kept).push(job);
      if (kept.length > 0) this.#batches.push({ jobs: kept.reverse(), claimedAt });
    }
    this.#size -= taken.length;
    return taken;
  }

  /** Removes all jobs and returns them in their order. */
  takeAll(): ClaimedJob[] {
    const jobs = this.#batches.splice(0).flatMap((batch) => batch.jobs.reverse());
    this.#size = 0;
    return jobs;
  }
}
