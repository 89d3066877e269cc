/** Which workers of a queue live, as far as one process can see. */
import type { PostgresServer } from "./server.js";
import { Sight } from "./sight.js";
import { type Liveness, leaseGraceSeconds, livenessOf } from "./worker-ids.js";

/**
 * A worker must have been silent for one whole beat beyond its row's time, while the sweeper itself could see (5.2).
 */
const beatSeconds = 3;
/** After the database's clock was set back, living workers write their rows anew within this time, s. */
const rowAgainSeconds = 10;
/** Rows that are written for longer, because their workers beat seldom, are believed. */
const longestRowMs = 60_000;
/**
 * After an outage the workers come back one by one, with results that they have held: no job is called stuck or
 * orphaned before the longest back-off (5 s) and a claim's or acknowledgement's turn have passed, s.
 */
export const returnSeconds = 12;

export interface WorkerAge {
  worker_id: string;
  alive: boolean;
  /** Seconds since the row's time ran out; negative while it runs. */
  overdue: number;
  /** What the worker may take on top of a timeout, s; null when its row does not say so. */
  grace: number | null;
  /** The database's clock, epoch ms. */
  clock: number;
}

const silenceOf: Record<Liveness, number> = {
  lock: beatSeconds,
  lease: leaseGraceSeconds,
  row: Number.POSITIVE_INFINITY,
};

export class Workers {
  readonly sight: Sight;
  /**
   * Workers seen alive, so that one whose row somebody deleted is not forgotten. Value: from when on its absence means
   * silence, by performance.now().
   */
  readonly #known = new Map<string, number>();
  /** What a beat told, and when. */
  #heard: readonly WorkerAge[] = [];
  #heardAt = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly server: PostgresServer,
    private readonly queueName: string,
  ) {
    this.sight = new Sight(server);
  }

  /** A beat has answered what a look would have, so that the next look can be spared while nobody is silent. */
  heard(workers: readonly WorkerAge[], gapSeconds: number): void {
    this.#saw(workers, gapSeconds);
    this.#heard = workers;
    this.#heardAt = performance.now();
  }

  async look(gapSeconds: number): Promise<WorkerAge[]> {
    const sentAt = performance.now();
    const workers = await this.server.query<WorkerAge>(this.server.statements.ages, [this.queueName]);
    if (workers[0]) this.server.clock.saw(workers[0].clock, sentAt);
    this.#saw(workers, gapSeconds);
    return workers;
  }

  /** A beat has told of all workers within the last `seconds`, and none of them can be silent by now. */
  isNobodySilent(seconds: number): boolean {
    const passed = (performance.now() - this.#heardAt) / 1_000;
    if (passed >= seconds) return false;
    const heard = new Set(this.#heard.map(({ worker_id }) => worker_id));
    return (
      !this.#heard.some(({ worker_id, overdue }) => this.#isSilent(worker_id, overdue + passed)) &&
      [...this.#known.keys()].every((id) => heard.has(id))
    );
  }

  /** Those that were silent for long enough to be looked at. */
  silent(workers: readonly WorkerAge[]): string[] {
    const now = performance.now();
    const present = new Set(workers.map(({ worker_id }) => worker_id));
    const overdue = workers.filter((worker) => this.#isSilent(worker.worker_id, worker.overdue));
    const missing = [...this.#known].filter(([id, silentAt]) => !present.has(id) && now >= silentAt);
    return [...overdue.map(({ worker_id }) => worker_id), ...missing.map(([id]) => id)].filter(
      // A worker that holds no lock has nothing but its row: after an outage it gets time to renew it.
      (id) => this.sight.lasts(livenessOf(id) === "lock" ? beatSeconds : returnSeconds),
    );
  }

  /** Nobody holds its lock, or its lease is over. False when nothing can tell. */
  async isDead(workerId: string): Promise<boolean> {
    const { isDead, isLeaseOver } = this.server.statements;
    const liveness = livenessOf(workerId);
    if (liveness === "row") return false;
    const [row] = await this.server.query<{ dead: boolean }>(liveness === "lock" ? isDead : isLeaseOver, [
      workerId,
    ]);
    return row?.dead === true;
  }

  forget(workerId: string): void {
    this.#known.delete(workerId);
  }

  /**
   * Its row's time ran out, or lies far ahead because the row was written before the database's clock was set back:
   * that would hide its death for the length of the step. One that lives holds its lock.
   */
  #isSilent(workerId: string, overdue: number): boolean {
    const liveness = livenessOf(workerId);
    const { setBack } = this.server.clock;
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
    this.sight.looked(gapSeconds);
    const now = performance.now();
    for (const { worker_id, alive, overdue } of workers) {
      const liveness = livenessOf(worker_id);
      if (!alive || liveness === "row") continue;
      // A lock tells at once; of a lease, the time that is left counts.
      const left = liveness === "lock" ? 0 : -overdue;
      this.#known.set(worker_id, now + (left + silenceOf[liveness]) * 1_000);
    }
  }
}
