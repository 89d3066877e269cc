/**
 * Cleans a queue: jobs of dead workers (every 2 s, cheap while nobody dies), stuck jobs and rows past their time
 * (every 10 s). Any number of processes may sweep; one at a time works on a queue, and every single change is decided
 * again under the row's lock, so that a second sweeper does no harm (D-15, D-24).
 */
import type { StoredJob, SweepLimits } from "../broker.js";
import type { Logger } from "../logger.js";
import { loseJob, read, sweepJob } from "../transitions.js";
import { isConnectionError } from "./connection.js";
import type { RowStore } from "./rows.js";
import type { PostgresServer } from "./server.js";
import { Sight } from "./sight.js";

/** Workers whose id begins so hold a lock that ends with them. Python's, and those behind poolers, do not. */
export const vouchedPrefix = "ts-";
const isVouched = (workerId: string): boolean => workerId.startsWith(vouchedPrefix);

/** A worker must have been silent for one whole beat beyond its row's time, while the sweeper itself could see (5.2). */
const beatSeconds = 3;
/**
 * A row that expires that much later, s, was written before the database's clock was set back: it says nothing, and its
 * worker is looked at as a silent one is. One that lives holds its lock.
 */
const farAheadSeconds = 600;
const isSilent = (overdue: number): boolean => overdue >= beatSeconds || overdue < -farAheadSeconds;
/**
 * After an outage the workers come back one by one, with results that they have held: no job is called stuck or
 * orphaned before the longest back-off (5 s) and a claim's or acknowledgement's turn have passed, s.
 */
const returnSeconds = 12;
/** For workers that hold no lock: silence is all there is to go by (D-10). */
const unvouchedGraceSeconds = 300;
/** 8 MB of table per statement, at most 64 MB per pass: a table of 1 GB is gone through in under three minutes. */
const blocksPerStatement = 1_000;
const blocksPerPass = 8_000;

export interface WorkerAge {
  worker_id: string;
  alive: boolean;
  /** Seconds since the row's time ran out; negative while it runs. */
  overdue: number;
  /** The database's clock, epoch ms. */
  clock: number;
}

interface SweepLeft {
  /** This sweep did its part; otherwise another one is at it. */
  got: boolean;
  blocks: number;
  running: boolean;
}

export class Sweeper {
  /** Workers seen alive, so that one whose row somebody deleted is not forgotten. Value: when last seen. */
  readonly #known = new Map<string, number>();
  /** Since when a running job has been without a living worker, by owner. Times here are performance.now(). */
  readonly #orphanedSince = new Map<string, number>();
  readonly #sight: Sight;
  /** What a beat told, and when. */
  #heard: readonly WorkerAge[] = [];
  #heardAt = Number.NEGATIVE_INFINITY;
  /** Without a look for so long, the sweeper did not see the database. */
  #gapSeconds = 0;
  #block = 0;

  constructor(
    private readonly server: PostgresServer,
    private readonly rows: RowStore,
    private readonly queueName: string,
    private readonly logger: Logger,
  ) {
    this.#sight = new Sight(server);
  }

  /** Requeues or fails what dead workers left behind. Answers the keys. */
  async sweepLost(limits: SweepLimits): Promise<string[]> {
    this.#gapSeconds = 2 * limits.lookEvery + 1;
    const heardLately = performance.now() - this.#heardAt < (limits.lookEvery + 1) * 1_000;
    if (heardLately && !this.#isAnybodySilent()) return [];
    const workers = await this.#look();
    const now = performance.now();
    if (!this.#sight.lasts(beatSeconds)) return [];

    const rowOf = new Map(workers.map((worker) => [worker.worker_id, worker]));
    const suspects = new Set<string>();
    for (const { worker_id, overdue } of workers)
      if (isVouched(worker_id) && isSilent(overdue)) suspects.add(worker_id);
    for (const [id, seen] of this.#known) {
      if (!rowOf.has(id) && now - seen >= beatSeconds * 1_000) suspects.add(id);
    }
    const swept: string[] = [];
    for (const id of suspects) {
      const keys = await this.#buryIfDead(id, limits);
      if (!keys) continue;
      this.#known.delete(id);
      swept.push(...keys);
    }
    return swept;
  }

  /** A beat has answered what a look would have, so that the next look can be spared while nobody is silent. */
  heard(workers: readonly WorkerAge[]): void {
    this.#saw(workers);
    this.#heard = workers;
    this.#heardAt = performance.now();
  }

  /** Of those that were heard of last, or that were known before, somebody may be dead by now. */
  #isAnybodySilent(): boolean {
    const passed = (performance.now() - this.#heardAt) / 1_000;
    const heard = new Set(this.#heard.map(({ worker_id }) => worker_id));
    return (
      this.#heard.some(({ worker_id, overdue }) => isVouched(worker_id) && isSilent(overdue + passed)) ||
      [...this.#known.keys()].some((id) => !heard.has(id))
    );
  }

  async #look(): Promise<WorkerAge[]> {
    const workers = await this.server.query<WorkerAge>(this.server.statements.ages, [this.queueName]);
    this.#saw(workers);
    return workers;
  }

  #saw(workers: readonly WorkerAge[]): void {
    this.#sight.looked(this.#gapSeconds);
    const now = performance.now();
    for (const { worker_id, alive } of workers)
      if (alive && isVouched(worker_id)) this.#known.set(worker_id, now);
  }

  /** Null when the worker's lock is held: it lives, however slow it is. */
  async #buryIfDead(workerId: string, limits: SweepLimits): Promise<string[] | null> {
    const { isDead, retire } = this.server.statements;
    const [row] = await this.server.query<{ dead: boolean }>(isDead, [workerId]);
    if (!row?.dead) return null;
    const keys: string[] = [];
    let complete = true;
    for await (const { row: job } of this.rows.running()) {
      if (read(job)?.workerId !== workerId) continue;
      const lost = await this.#orLater(job, () => this.#lose(job, limits));
      if (lost === null) complete = false;
      else if (lost) keys.push(job.key);
    }
    // Otherwise it is found dead again at the next look.
    if (complete) await this.server.query(retire, [workerId]);
    if (keys.length > 0)
      this.logger.warn({ lostWorker: workerId, jobs: keys.length }, "worker died, its jobs were taken over");
    return keys;
  }

  /** Ends stuck jobs, takes over orphans, deletes rows past their time. Answers the keys of swept jobs. */
  async sweepStuck(limits: SweepLimits): Promise<string[]> {
    this.#gapSeconds = 2 * limits.lookEvery + 1;
    if (!(await this.#deleteExpired())) {
      this.#orphanedSince.clear();
      return [];
    }
    const { lockSweep, unlockSweep } = this.server.statements;
    const work = () => this.#sweepRunning(limits);
    // Behind a transaction pooler there is no session to hold a lock in; several sweepers do no harm, only more work.
    if (!this.server.listener) return work();
    return (
      (await this.server.listener.exclusively(lockSweep.text, unlockSweep.text, [this.queueName], work)) ?? []
    );
  }

  async #sweepRunning(limits: SweepLimits): Promise<string[]> {
    const workers = await this.#look();
    if (!this.#sight.lasts(returnSeconds)) return [];
    const alive = new Set(workers.filter((worker) => worker.alive).map((worker) => worker.worker_id));
    const met = new Set<string>();
    const swept: string[] = [];
    for await (const { row, clock } of this.rows.running()) {
      const done = await this.#orLater(row, async () =>
        (await this.#isOrphan(row, alive, met)) ? this.#lose(row, limits) : this.#end(row, clock, limits),
      );
      if (done) swept.push(row.key);
    }
    for (const owner of this.#orphanedSince.keys()) if (!met.has(owner)) this.#orphanedSince.delete(owner);
    return swept;
  }

  /**
   * Goes on where the last pass ended; a small table is gone through at every pass, in one statement (7 -> 1 of a pass
   * in which nothing runs). Answers whether jobs run.
   */
  async #deleteExpired(): Promise<boolean> {
    const { sweep, deleteExpired } = this.server.statements;
    const [left] = await this.server.query<SweepLeft>(sweep, [
      ...this.#pages(),
      this.queueName,
      this.server.jobsTable,
    ]);
    this.#sight.looked(this.#gapSeconds);
    if (!left) return true;
    const { got, blocks, running } = left;
    for (let passed = 0; got && passed < Math.min(blocksPerPass, blocks); ) {
      this.#block = this.#block + blocksPerStatement < blocks ? this.#block + blocksPerStatement : 0;
      passed += blocksPerStatement;
      if (passed < Math.min(blocksPerPass, blocks)) await this.server.query(deleteExpired, this.#pages());
    }
    return running;
  }

  #pages(): [from: string, to: string] {
    return [`(${this.#block},0)`, `(${this.#block + blocksPerStatement},0)`];
  }

  /** Null when it failed: one job that cannot be swept now must not keep the others from it. */
  async #orLater(row: StoredJob, sweep: () => Promise<boolean>): Promise<boolean | null> {
    try {
      return await sweep();
    } catch (error) {
      if (isConnectionError(error)) throw error;
      this.logger.warn(
        { err: error, job: row.key },
        "could not sweep a job, trying again with the next sweep",
      );
      return null;
    }
  }

  async #isOrphan(row: StoredJob, alive: ReadonlySet<string>, met: Set<string>): Promise<boolean> {
    const workerId = read(row)?.workerId ?? "";
    if (alive.has(workerId)) return false;
    // Python names no worker between claim and start: there each claim has a time of its own.
    const owner = workerId ? `worker ${workerId}` : `claim ${row.token} ${row.key}`;
    met.add(owner);
    const now = performance.now();
    const since = this.#orphanedSince.get(owner) ?? now;
    this.#orphanedSince.set(owner, since);
    const vouched = isVouched(workerId);
    const grace = vouched ? 3 * beatSeconds : unvouchedGraceSeconds;
    if (now - since < grace * 1_000) return false;
    if (!vouched) return true;
    const [answer] = await this.server.query<{ dead: boolean }>(this.server.statements.isDead, [workerId]);
    return answer?.dead === true;
  }

  async #lose(row: StoredJob, { lostLimit, failedTtl }: SweepLimits): Promise<boolean> {
    const lost = await this.rows.changeNow(row.key, (now, clock) => {
      if (!isSameRun(now, row)) return { change: null, answer: false };
      return { change: loseJob(now, clock, lostLimit, failedTtl), answer: true };
    });
    return lost === true;
  }

  async #end(row: StoredJob, seenAt: number, { graceSeconds, failedTtl }: SweepLimits): Promise<boolean> {
    const databaseClock = this.server.clock;
    const setForward = (epochMs: number) => databaseClock.setForwardSince(epochMs);
    if (!sweepJob(row, seenAt, graceSeconds, failedTtl, setForward)) return false;
    let isClockAhead = false;
    const ended = await this.rows.changeNow(row.key, (now, clock) => {
      // After a step of the database's clock every running job looks stuck: measure the step before judging.
      isClockAhead = databaseClock.isAhead(clock);
      // The answer may have come from before an outage, and this lock from after it.
      if (isClockAhead || !isSameRun(now, row) || !this.#sight.lasts(returnSeconds))
        return { change: null, answer: false };
      const change = sweepJob(now, clock, graceSeconds, failedTtl, setForward);
      return { change, answer: change !== null };
    });
    if (isClockAhead) await databaseClock.measure();
    return ended === true;
  }
}

/** Python starts a job anew without changing the token, but never without changing the document. */
const isSameRun = (now: StoredJob, then: StoredJob): boolean =>
  now.token === then.token &&
  (now.status === "active" || now.status === "aborting") &&
  read(now)?.workerId === read(then)?.workerId &&
  read(now)?.attempts === read(then)?.attempts;
