/** Finds out which workers of a queue live, as far as one process can tell. */
import type { TableSession } from "../table-session.js";
import { OutageDetector } from "./outage-detector.js";
import { type Liveness, leaseGraceSeconds, livenessOf } from "./worker-ids.js";

/**
 * A worker with a lock counts as silent when its row has been expired for one whole beat, s, while the sweeper itself
 * could reach the database.
 */
const beatSeconds = 3;
/** After the database's clock was set back, living workers have written their rows again within this time, s. */
const rowAgainSeconds = 10;
/**
 * A row that expires later than this plus the step of the clock, ms, is trusted: its worker beats seldom, and the row
 * was not written before the clock was set back.
 */
const longestRowMs = 60_000;
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

/** After how many seconds beyond its row's time a worker counts as silent. */
const silenceOf: Record<Liveness, number> = {
  lock: beatSeconds,
  lease: leaseGraceSeconds,
  row: Number.POSITIVE_INFINITY,
};

export class WorkerRows {
  readonly outage: OutageDetector;
  /**
   * Workers that were seen alive, so that a worker whose row somebody deleted is not forgotten. The value is the
   * time from which a missing row means that the worker is silent, by performance.now().
   */
  readonly #known = new Map<string, number>();
  /** The rows that the last beat returned, and when, by performance.now(). */
  #heard: readonly WorkerAge[] = [];
  #heardAt = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly session: TableSession,
    private readonly queueName: string,
  ) {
    this.outage = new OutageDetector(session.pool);
  }

  /** Takes the rows that a beat has returned. The next look is unnecessary while no worker can be silent. */
  heard(workers: readonly WorkerAge[], gapSeconds: number): void {
    this.#saw(workers, gapSeconds);
    this.#heard = workers;
    this.#heardAt = performance.now();
  }

  /** Reads the rows of this queue's workers. */
  async look(gapSeconds: number): Promise<WorkerAge[]> {
    const sentAt = performance.now();
    const workers = await this.session.pool.query<WorkerAge>(this.session.statements.ages, [this.queueName]);
    if (workers[0]) this.session.pool.clock.saw(workers[0].clock, sentAt);
    this.#saw(workers, gapSeconds);
    return workers;
  }

  /**
   * Returns true if a beat returned all known workers within the last `seconds`, and none of them can be silent so far.
   */
  isNobodySilent(seconds: number): boolean {
    const passed = (performance.now() - this.#heardAt) / 1_000;
    if (passed >= seconds) return false;
    const heard = new Set(this.#heard.map(({ worker_id }) => worker_id));
    return (
      !this.#heard.some(({ worker_id, overdue }) => this.#isSilent(worker_id, overdue + passed)) &&
      [...this.#known.keys()].every((id) => heard.has(id))
    );
  }

  /** Returns the ids of workers that have been silent for long enough: the caller asks `isDead` for each. */
  silent(workers: readonly WorkerAge[]): string[] {
    const now = performance.now();
    const present = new Set(workers.map(({ worker_id }) => worker_id));
    const overdue = workers.filter((worker) => this.#isSilent(worker.worker_id, worker.overdue));
    const missing = [...this.#known].filter(([id, silentAt]) => !present.has(id) && now >= silentAt);
    return [...overdue.map(({ worker_id }) => worker_id), ...missing.map(([id]) => id)].filter(
      // A worker without a lock has only its row: after an outage it gets time to renew the row.
      (id) => this.outage.reachableFor(livenessOf(id) === "lock" ? beatSeconds : recoverySeconds),
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
  #isSilent(workerId: string, overdue: number): boolean {
    const liveness = livenessOf(workerId);
    const { setBack } = this.session.pool.clock;
    const aheadMs = -overdue * 1_000;
    const isLeftOver =
      liveness === "lock" &&
      setBack !== null &&
      performance.now() - setBack.noticedAt > rowAgainSeconds * 1_000 &&
      aheadMs > setBack.ms / 2 &&
      aheadMs < setBack.ms + longestRowMs;
    return overdue >= silenceOf[liveness] || isLeftOver;
  }

  #saw(workers: readonly WorkerAge[], gapSeconds: number): void {
    this.outage.onResponse(gapSeconds);
    const now = performance.now();
    for (const { worker_id, alive, overdue } of workers) {
      const liveness = livenessOf(worker_id);
      if (!alive || liveness === "row") continue;
      // With a lock, `isDead` can tell at once. With a lease, the rest of the lease must pass first.
      const left = liveness === "lock" ? 0 : -overdue;
      this.#known.set(worker_id, now + (left + silenceOf[liveness]) * 1_000);
    }
  }
}
