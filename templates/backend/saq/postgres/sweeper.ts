/**
 * Cleans a queue: jobs of dead workers (every 2 s, cheap while nobody dies), stuck jobs and rows past their time
 * (every 10 s). Any number of processes may sweep; one at a time works on a queue, and every single change is decided
 * again under the row's lock, so that a second sweeper does no harm (D-15, D-24).
 */
import type { StoredJob, SweepLimits } from "../broker.js";
import type { Logger } from "../logger.js";
import { loseJob, read, sweepJob } from "../transitions.js";
import type { RowStore } from "./rows.js";
import type { PostgresServer } from "./server.js";

/** Workers whose id begins so hold a lock that ends with them. Python's, and those behind poolers, do not. */
export const vouchedPrefix = "ts-";

/** A worker must have been silent for one whole beat beyond its row's time, while the sweeper itself could see (5.2). */
const beatSeconds = 3;
/** For workers that hold no lock: silence is all there is to go by (D-10). */
const unvouchedGraceSeconds = 300;
/** 8 MB of table per statement, at most 64 MB per pass: a table of 1 GB is gone through in under three minutes. */
const blocksPerStatement = 1_000;
const blocksPerPass = 8_000;

interface WorkerAge {
  worker_id: string;
  alive: boolean;
  /** Seconds since the row's time ran out; negative while it runs. */
  overdue: number;
}

export class Sweeper {
  /** Workers seen alive, so that one whose row somebody deleted is not forgotten. Value: epoch ms last seen. */
  readonly #known = new Map<string, number>();
  /** Since when a running job's worker has had no row, by worker id. Epoch ms. */
  readonly #orphanedSince = new Map<string, number>();
  #lastSight = 0;
  #sightSince = 0;
  #block = 0;

  constructor(
    private readonly server: PostgresServer,
    private readonly rows: RowStore,
    private readonly queueName: string,
    private readonly logger: Logger,
  ) {}

  /** Requeues or fails what dead workers left behind. Answers the keys. */
  async sweepLost(limits: SweepLimits): Promise<string[]> {
    const workers = await this.server.query<WorkerAge>(this.server.statements.workers, [this.queueName]);
    const now = Date.now();
    // After a pause of the database or of this process everybody's row looks old: look again for a whole beat first.
    if (now - this.#lastSight > (2 * limits.lookEvery + 1) * 1_000) this.#sightSince = now;
    this.#lastSight = now;
    for (const { worker_id, alive } of workers) if (alive) this.#known.set(worker_id, now);
    if (now - this.#sightSince < beatSeconds * 1_000) return [];

    const rowOf = new Map(workers.map((worker) => [worker.worker_id, worker]));
    const suspects = new Set<string>();
    for (const { worker_id, overdue } of workers) if (overdue >= beatSeconds) suspects.add(worker_id);
    for (const [id, seen] of this.#known) {
      if (!rowOf.has(id) && now - seen >= beatSeconds * 1_000) suspects.add(id);
    }
    const swept: string[] = [];
    for (const id of suspects) {
      if (!id.startsWith(vouchedPrefix)) continue;
      const keys = await this.#buryIfDead(id, limits);
      if (!keys) continue;
      this.#known.delete(id);
      swept.push(...keys);
    }
    return swept;
  }

  /** Null when the worker's lock is held: it lives, however slow it is. */
  async #buryIfDead(workerId: string, limits: SweepLimits): Promise<string[] | null> {
    const { isDead, retire } = this.server.statements;
    const [row] = await this.server.query<{ dead: boolean }>(isDead, [workerId]);
    if (!row?.dead) return null;
    const keys: string[] = [];
    for await (const job of this.rows.running()) {
      if (read(job)?.workerId === workerId && (await this.#lose(job, limits))) keys.push(job.key);
    }
    await this.server.query(retire, [workerId]);
    if (keys.length > 0)
      this.logger.warn({ lostWorker: workerId, jobs: keys.length }, "worker died, its jobs were taken over");
    return keys;
  }

  /** Ends stuck jobs, takes over orphans, deletes rows past their time. Answers the keys of swept jobs. */
  async sweepStuck(limits: SweepLimits): Promise<string[]> {
    const { lockSweep, unlockSweep } = this.server.statements;
    const work = () => this.#clean(limits);
    // Behind a transaction pooler there is no session to hold a lock in; several sweepers do no harm, only more work.
    if (!this.server.listener) return work();
    return (
      (await this.server.listener.exclusively(lockSweep.text, unlockSweep.text, [this.queueName], work)) ?? []
    );
  }

  async #clean(limits: SweepLimits): Promise<string[]> {
    const workers = await this.server.query<WorkerAge>(this.server.statements.workers, [this.queueName]);
    const alive = new Set(workers.filter((worker) => worker.alive).map((worker) => worker.worker_id));
    const swept: string[] = [];
    for await (const row of this.rows.running())
      if (await this.#sweepRow(row, alive, limits)) swept.push(row.key);
    await this.#deleteExpired();
    for (const [id, since] of this.#orphanedSince) {
      if (Date.now() - since > 4 * unvouchedGraceSeconds * 1_000) this.#orphanedSince.delete(id);
    }
    return swept;
  }

  /** Goes on where the last pass ended; a small table is gone through at every pass. */
  async #deleteExpired(): Promise<void> {
    const { blocks, deleteExpired, deleteOldWorkers } = this.server.statements;
    const [size] = await this.server.query<{ count: number }>(blocks, [this.server.jobsTable]);
    const count = size?.count ?? 0;
    for (let passed = 0; passed < Math.min(blocksPerPass, count); passed += blocksPerStatement) {
      if (this.#block >= count) this.#block = 0;
      const end = this.#block + blocksPerStatement;
      await this.server.query(deleteExpired, [`(${this.#block},0)`, `(${end},0)`]);
      this.#block = end;
    }
    await this.server.query(deleteOldWorkers, []);
  }

  async #sweepRow(row: StoredJob, alive: ReadonlySet<string>, limits: SweepLimits): Promise<boolean> {
    try {
      const workerId = read(row)?.workerId ?? "";
      const done = (await this.#isOrphan(workerId, alive))
        ? await this.#lose(row, limits)
        : await this.#end(row, limits);
      return done === true;
    } catch (error) {
      // One job that cannot be swept now must not keep the others from it.
      this.logger.warn(
        { err: error, job: row.key },
        "could not sweep a job, trying again with the next sweep",
      );
      return false;
    }
  }

  async #isOrphan(workerId: string, alive: ReadonlySet<string>): Promise<boolean> {
    if (alive.has(workerId)) {
      this.#orphanedSince.delete(workerId);
      return false;
    }
    const since = this.#orphanedSince.get(workerId) ?? Date.now();
    this.#orphanedSince.set(workerId, since);
    const vouched = workerId.startsWith(vouchedPrefix);
    const grace = vouched ? 3 * beatSeconds : unvouchedGraceSeconds;
    if (Date.now() - since < grace * 1_000) return false;
    if (!vouched) return true;
    const [row] = await this.server.query<{ dead: boolean }>(this.server.statements.isDead, [workerId]);
    return row?.dead === true;
  }

  #lose(row: StoredJob, { lostLimit, failedTtl }: SweepLimits): Promise<boolean | null> {
    return this.rows.change(row.key, (now) => {
      if (now.token !== row.token || (now.status !== "active" && now.status !== "aborting"))
        return { change: null, answer: false };
      return { change: loseJob(now, this.server.now(), lostLimit, failedTtl), answer: true };
    });
  }

  #end(row: StoredJob, { graceSeconds, failedTtl }: SweepLimits): Promise<boolean | null> {
    if (!sweepJob(row, this.server.now(), graceSeconds, failedTtl)) return Promise.resolve(false);
    return this.rows.change(row.key, (now) => {
      if (now.token !== row.token || (now.status !== "active" && now.status !== "aborting"))
        return { change: null, answer: false };
      const change = sweepJob(now, this.server.now(), graceSeconds, failedTtl);
      return { change, answer: change !== null };
    });
  }
}
