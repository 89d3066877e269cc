/** Finds out which workers of a queue live, as far as one process can tell. */

import { type Liveness, leaseGraceSeconds, livenessOf } from "../../storage/worker-ids.js";
import type { TableSession } from "../table-session.js";
import { OutageDetector } from "./outage-detector.js";

/**
 * A worker with a lock is a suspect when its row has been expired for this time, s, while the sweeper itself could
 * reach the database. Workers update their rows this often.
 */
const updateSeconds = 3;
/** After the database's clock was set back, living workers have written their rows again within this time, s. */
const rowRenewalSeconds = 10;
/**
 * A row that expires later than this plus the step of the clock, ms, is trusted: its worker seldom updates it, and the
 * row was not written before the clock was set back.
 */
const maxRowMs = 60_000;
/**
 * After an outage the workers come back one by one, with results that they have kept. No job counts as stuck or
 * orphaned before the longest back-off (5 s) and the time for a claim or a settlement have passed, s.
 */
export const recoverySeconds = 12;

export interface WorkerAge {
  worker_id: string;
  /** True while the row has not expired. */
  alive: boolean;
  /** Seconds since the row has expired; negative before that. */
  overdue: number;
  /** How long the worker may take beyond a job's timeout, s; null when its row does not say so. */
  grace: number | null;
  /** The database's clock, epoch ms. */
  clock: number;
}

/** How long a worker's row must be expired before the worker is a suspect: it may have died, s. */
const suspectAfter: Record<Liveness, number> = {
  lock: updateSeconds,
  lease: leaseGraceSeconds,
  row: Number.POSITIVE_INFINITY,
};

export class WorkerRows {
  readonly outage: OutageDetector;
  /**
   * Workers that were seen alive, so that a worker whose row somebody deleted is not forgotten. The value is the
   * time from which a missing row makes the worker a suspect, by performance.now().
   */
  readonly #known = new Map<string, number>();
  /** The rows that the last update of a worker's row returned, and when, by performance.now(). */
  #updatedRows: readonly WorkerAge[] = [];
  #updatedAt = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly session: TableSession,
    private readonly queueName: string,
  ) {
    this.outage = new OutageDetector(session.pool);
  }

  /** Takes the rows that an update has returned. The next `read` is unnecessary while no worker can be a suspect. */
  onUpdate(workers: readonly WorkerAge[], gapSeconds: number): void {
    this.#recordAlive(workers, gapSeconds);
    this.#updatedRows = workers;
    this.#updatedAt = performance.now();
  }

  /** Reads the rows of this queue's workers. */
  async read(gapSeconds: number): Promise<WorkerAge[]> {
    const sentAt = performance.now();
    const { workerAges } = this.session.statements;
    const workers = await this.session.pool.query<WorkerAge>(workerAges, [this.queueName]);
    if (workers[0]) this.session.pool.clock.compareWith(workers[0].clock, sentAt);
    this.#recordAlive(workers, gapSeconds);
    return workers;
  }

  /**
   * Returns true if an update returned all known workers within the last `seconds`, and none of them can be a suspect.
   */
  hasNoSuspect(seconds: number): boolean {
    const passed = (performance.now() - this.#updatedAt) / 1_000;
    if (passed >= seconds) return false;
    const updated = new Set(this.#updatedRows.map(({ worker_id }) => worker_id));
    return (
      !this.#updatedRows.some(({ worker_id, overdue }) => this.#isSuspect(worker_id, overdue + passed)) &&
      [...this.#known.keys()].every((id) => updated.has(id))
    );
  }

  /** Returns the ids of workers that may have died. The caller must check each with `isDead`. */
  suspects(workers: readonly WorkerAge[]): string[] {
    const now = performance.now();
    const present = new Set(workers.map(({ worker_id }) => worker_id));
    const overdue = workers.filter((worker) => this.#isSuspect(worker.worker_id, worker.overdue));
    const missing = [...this.#known].filter(([id, suspectAt]) => !present.has(id) && now >= suspectAt);
    return [...overdue.map(({ worker_id }) => worker_id), ...missing.map(([id]) => id)].filter(
      // A worker without a lock has only its row: after an outage it gets time to renew the row.
      (id) => this.outage.reachableFor(livenessOf(id) === "lock" ? updateSeconds : recoverySeconds),
    );
  }

  /**
   * Returns true if nobody holds the worker's lock, or its lease is over; false for a Python worker, which has neither.
   */
  async isDead(workerId: string): Promise<boolean> {
    const { isDead, isLeaseOver } = this.session.statements;
    const liveness = livenessOf(workerId);
    if (liveness === "row") return false;
    const [row] = await this.session.pool.query<{ dead: boolean }>(
      liveness === "lock" ? isDead : isLeaseOver,
      [workerId],
    );
    return row?.dead === true;
  }

  forget(workerId: string): void {
    this.#known.delete(workerId);
  }

  /**
   * Returns true if the worker's row has expired for long enough. Also true, for a worker with a lock, if its row
   * expires far in the future because it was written before the database's clock was set back. Such a row would hide
   * the death of its worker for the length of the step. If the worker lives, it still holds its lock.
   */
  #isSuspect(workerId: string, overdue: number): boolean {
    const liveness = livenessOf(workerId);
    const { setBack } = this.session.pool.clock;
    const aheadMs = -overdue * 1_000;
    const isFromBeforeStep =
      liveness === "lock" &&
      setBack !== null &&
      performance.now() - setBack.noticedAt > rowRenewalSeconds * 1_000 &&
      aheadMs > setBack.ms / 2 &&
      aheadMs < setBack.ms + maxRowMs;
    return overdue >= suspectAfter[liveness] || isFromBeforeStep;
  }

  #recordAlive(workers: readonly WorkerAge[], gapSeconds: number): void {
    this.outage.onResponse(gapSeconds);
    const now = performance.now();
    for (const { worker_id, alive, overdue } of workers) {
      const liveness = livenessOf(worker_id);
      if (!alive || liveness === "row") continue;
      // With a lock, `isDead` can tell at once. With a lease, the rest of the lease must pass first.
      const left = liveness === "lock" ? 0 : -overdue;
      this.#known.set(worker_id, now + (left + suspectAfter[liveness]) * 1_000);
    }
  }
}
