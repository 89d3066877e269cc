/**
 * Sweeps a queue: every 2 s the jobs of dead workers (cheap while no worker dies), every 10 s stuck jobs and expired
 * rows. Any number of processes may sweep; one at a time works on a queue. Each change is decided again under the row's
 * lock, so that a second sweeper does no harm and a job that ends meanwhile keeps its end.
 */
import type { RowChange, StoredJob, SweepLimits } from "../../broker.js";
import { isStuck } from "../../core/job.js";
import { read } from "../../core/stored-job.js";
import { type Decision, loseJob, sweepJob } from "../../core/transitions.js";
import type { Logger } from "../../logger.js";
import { newToken } from "../claim-token.js";
import type { RowStore } from "../rows.js";
import type { TableSession } from "../table-session.js";
import { isSameRun, type RunningJob, RunningJobs } from "./running-jobs.js";
import { hadStarted } from "./started.js";
import { type Liveness, leaseGraceSeconds, livenessOf } from "./worker-ids.js";
import { returnSeconds, type WorkerAge, WorkerRows } from "./worker-rows.js";

/**
 * How long a running job must be without a living worker before it counts as orphaned, s. For a worker without a lock,
 * silence is the only evidence. Python's workers, moreover, do not end their jobs when they cannot reach the database.
 */
const orphanedAfter: Record<Liveness, number> = { lock: 9, lease: 9 + leaseGraceSeconds, row: 300 };
/** 8 MB of table per statement, at most 64 MB per pass: a table of 1 GB is swept in under three minutes. */
const blocksPerStatement = 1_000;
const blocksPerPass = 8_000;

interface SweepLeft {
  /** True if this sweep did its part; false if another sweeper is at work. */
  got: boolean;
  /** Pages of the jobs table. */
  blocks: number;
  /** True if jobs of this queue run. */
  running: boolean;
}

/** Decides how to change one locked row; null when the row is not to be swept any more. */
type Sweep = (row: StoredJob, clock: number) => RowChange | null;

export class Sweeper {
  readonly #workers: WorkerRows;
  readonly #running: RunningJobs;
  /** For each owner: since when its running jobs have been without a living worker, by performance.now(). */
  readonly #orphanedSince = new Map<string, number>();
  /** A longer time than this without an answer of the database counts as a gap, s. */
  #gapSeconds = 0;
  /** The page of the jobs table at which the next deletion of expired rows begins. */
  #block = 0;

  constructor(
    private readonly session: TableSession,
    private readonly rows: RowStore,
    private readonly queueName: string,
    private readonly logger: Logger,
  ) {
    this.#workers = new WorkerRows(session, queueName);
    this.#running = new RunningJobs(session, rows, queueName);
  }

  /** Takes the rows of workers that a beat has returned, which may make the next look for workers unnecessary. */
  heard(workers: readonly WorkerAge[]): void {
    this.#workers.heard(workers, this.#gapSeconds);
  }

  /** Requeues or fails the jobs of dead workers. Returns their keys. */
  async sweepLost(limits: SweepLimits): Promise<string[]> {
    this.#gapSeconds = 2 * limits.lookEvery + 1;
    if (this.#workers.isNobodySilent(limits.lookEvery + 1)) return [];
    const workers = await this.#workers.look(this.#gapSeconds);
    const swept: string[] = [];
    for (const id of this.#workers.silent(workers)) {
      if (!(await this.#workers.isDead(id))) continue;
      swept.push(...(await this.#takeOver(id, limits)));
    }
    return swept;
  }

  async #takeOver(workerId: string, { lostLimit, failedTtl }: SweepLimits): Promise<string[]> {
    const { runningOf, retire } = this.session.statements;
    const found = await this.session.pool.query<{ key: string; token: number }>(runningOf, [
      this.queueName,
      workerId,
    ]);
    const tokenOf = new Map(found.map(({ key, token }) => [key, token]));
    const { keys, isComplete } = await this.#sweep([...tokenOf.keys()], (row, clock) => {
      const isIts = row.token === tokenOf.get(row.key) && isRunning(row) && read(row)?.workerId === workerId;
      return isIts ? loseJob(row, clock, lostLimit, failedTtl, hadStarted(row)) : null;
    });
    // If jobs are left, the worker's row stays, and the next look finds the worker dead again.
    if (isComplete) {
      await this.session.pool.query(retire, [workerId]);
      this.#workers.forget(workerId);
    }
    if (keys.length > 0)
      this.logger.warn({ lostWorker: workerId, jobs: keys.length }, "worker died, its jobs were taken over");
    return keys;
  }

  /** Ends stuck jobs, takes over orphaned jobs, deletes expired rows. Returns the keys of stuck and orphaned jobs. */
  async sweepStuck(limits: SweepLimits): Promise<string[]> {
    this.#gapSeconds = 2 * limits.lookEvery + 1;
    if (!(await this.#deleteExpired())) {
      this.#orphanedSince.clear();
      this.#running.forgetAll();
      return [];
    }
    const { lockSweep, unlockSweep } = this.session.statements;
    const work = () => this.#sweepRunning(limits);
    // Behind a transaction pooler no session can hold a lock; several sweepers do no harm, only more work.
    if (!this.session.pool.listener) return work();
    return (
      (await this.session.pool.listener.exclusively(
        lockSweep.text,
        unlockSweep.text,
        [this.queueName],
        work,
      )) ?? []
    );
  }

  async #sweepRunning(limits: SweepLimits): Promise<string[]> {
    const workers = await this.#workers.look(this.#gapSeconds);
    const { jobs, clock } = await this.#running.look();
    if (!this.#workers.outage.lasts(returnSeconds)) return [];
    const { orphans, owned } = await this.#withoutWorker(jobs, workers);
    const lost = await this.#lose(orphans, limits);
    const ended = await this.#endStuck(owned, workers, clock, limits);
    return [...lost, ...ended];
  }

  /**
   * Returns the jobs whose worker is gone (`orphans`) and the jobs that may be ended by their limits (`owned`). A job
   * is in neither list while its worker, one of ours, may have died but has not been missing for long enough: if the
   * worker has died, the job must run again, whatever its limits say.
   */
  async #withoutWorker(jobs: readonly RunningJob[], workers: readonly WorkerAge[]) {
    const alive = new Set(workers.filter((worker) => worker.alive).map((worker) => worker.worker_id));
    const dead = new Map<string, boolean>();
    const isDead = async (id: string) => {
      const known = dead.get(id) ?? (await this.#workers.isDead(id));
      dead.set(id, known);
      return known;
    };
    const orphans: RunningJob[] = [];
    const owned: RunningJob[] = [];
    const met = new Set<string>();
    const now = performance.now();
    for (const job of jobs) {
      const workerId = job.limits?.workerId ?? "";
      if (alive.has(workerId) || job.limits === null) {
        owned.push(job);
        continue;
      }
      // Between claim and start, Python names no worker in the job: there the time is kept for each claim.
      const owner = workerId ? `worker ${workerId}` : `claim ${job.token} ${job.key}`;
      met.add(owner);
      const since = this.#orphanedSince.get(owner) ?? now;
      this.#orphanedSince.set(owner, since);
      const liveness = livenessOf(workerId);
      const isOver = now - since >= orphanedAfter[liveness] * 1_000;
      if (liveness === "row") (isOver ? orphans : owned).push(job);
      else if (await isDead(workerId)) {
        if (isOver) orphans.push(job);
      } else if (liveness === "lock") owned.push(job);
    }
    for (const owner of this.#orphanedSince.keys()) if (!met.has(owner)) this.#orphanedSince.delete(owner);
    return { orphans, owned };
  }

  async #lose(orphans: readonly RunningJob[], { lostLimit, failedTtl }: SweepLimits): Promise<string[]> {
    const jobOf = new Map(orphans.map((job) => [job.key, job]));
    const { keys } = await this.#sweep([...jobOf.keys()], (row, clock) => {
      const job = jobOf.get(row.key);
      if (job && isSameRun(row, job)) return loseJob(row, clock, lostLimit, failedTtl, hadStarted(row));
      if (job) job.readAt = Number.NEGATIVE_INFINITY;
      return null;
    });
    return keys;
  }

  async #endStuck(
    jobs: readonly RunningJob[],
    workers: readonly WorkerAge[],
    seenAt: number,
    { graceSeconds, failedTtl }: SweepLimits,
  ): Promise<string[]> {
    const graceOf = new Map(workers.map(({ worker_id, grace }) => [worker_id, grace]));
    const graceFor = ({ limits }: RunningJob) => graceOf.get(limits?.workerId ?? "") ?? graceSeconds;
    const databaseClock = this.session.pool.clock;
    const setForward = (epochMs: number) => databaseClock.setForwardSince(epochMs);
    const isOver = (job: RunningJob, limits: Parameters<typeof isStuck>[0]) =>
      isStuck(limits, seenAt, graceFor(job), setForward);
    // Read the documents of suspects again: a sign of life may have come since.
    const suspects = this.#running.stuck(jobs, isOver);
    await this.#running.read(suspects);
    const jobOf = new Map(this.#running.stuck(suspects, isOver).map((job) => [job.key, job]));
    let isClockAhead = false;
    const { keys } = await this.#sweep([...jobOf.keys()], (row, clock) => {
      // After a step of the database's clock, all running jobs look stuck: measure the step before ending any.
      isClockAhead ||= databaseClock.isAhead(clock);
      const job = jobOf.get(row.key);
      // The documents may have been read before an outage, and this row locked after it.
      if (!job || isClockAhead || !isSameRun(row, job) || !this.#workers.outage.lasts(returnSeconds))
        return null;
      return sweepJob(row, clock, graceFor(job), failedTtl, setForward);
    });
    if (isClockAhead) await databaseClock.measure();
    return keys;
  }

  /** Changes rows as decided. Rows that another transaction holds are left for the next sweep. */
  async #sweep(keys: readonly string[], decide: Sweep): Promise<{ keys: string[]; isComplete: boolean }> {
    const decision = (row: StoredJob, clock: number): Decision<boolean> => {
      const change = decide(row, clock);
      // A new token: the previous owner must not end this row, nor a job that is stored under its key later.
      return { change: change && { ...change, place: newToken() }, answer: change !== null };
    };
    const { answers, held } = await this.rows.changeMany(keys, decision);
    if (held.length > 0)
      this.logger.debug(
        { jobs: held.slice(0, 20), count: held.length },
        "could not sweep jobs whose rows a transaction holds, trying again with the next sweep",
      );
    const swept = [...answers].flatMap(([key, isSwept]) => (isSwept ? [key] : []));
    return { keys: swept, isComplete: held.length === 0 };
  }

  /**
   * Deletes expired rows, from where the previous pass ended. A small table is swept completely at each pass, in one
   * statement: a pass in which no job runs takes 1 statement instead of 7. Returns whether jobs run.
   */
  async #deleteExpired(): Promise<boolean> {
    const { sweep, deleteExpired } = this.session.statements;
    const [left] = await this.session.pool.query<SweepLeft>(sweep, [
      ...this.#pages(),
      this.queueName,
      this.session.jobsTable,
    ]);
    this.#workers.outage.looked(this.#gapSeconds);
    if (!left) return true;
    const { got, blocks, running } = left;
    for (let passed = 0; got && passed < Math.min(blocksPerPass, blocks); ) {
      this.#block = this.#block + blocksPerStatement < blocks ? this.#block + blocksPerStatement : 0;
      passed += blocksPerStatement;
      if (passed < Math.min(blocksPerPass, blocks))
        await this.session.pool.query(deleteExpired, this.#pages());
    }
    return running;
  }

  /** The range of pages for one statement; `to` is not part of it. */
  #pages(): [from: string, to: string] {
    return [`(${this.#block},0)`, `(${this.#block + blocksPerStatement},0)`];
  }
}

const isRunning = ({ status }: StoredJob): boolean => status === "active" || status === "aborting";
