/**
 * Sweeps a queue. By default, it sweeps the jobs of dead workers every 2 s (cheap while no worker dies), and stuck jobs
 * and expired rows every 10 s. Any number of processes may sweep a queue; usually one process at a time sweeps its
 * stuck jobs and expired rows. Each change is decided again while the row is locked, so that a second sweeper does no
 * harm and a job that ends meanwhile keeps its result.
 */

import type { SweepLimits } from "../../broker.js";
import { isStuck } from "../../core/job.js";
import { read } from "../../core/stored-job.js";
import type { RowChange } from "../../core/transitions.js";
import { loseJob, sweepJob } from "../../core/transitions.js";
import type { Logger } from "../../logger.js";
import { type Liveness, leaseGraceSeconds, livenessOf } from "../../storage/worker-ids.js";
import type { Row } from "../raw-rows.js";
import type { RowDecision, RowStore } from "../rows.js";
import type { TableSession } from "../table-session.js";
import { isSameRun, type RunningJob, RunningJobs } from "./running-jobs.js";
import { hadStarted } from "./started.js";
import { recoverySeconds, type WorkerAge, WorkerRows } from "./worker-rows.js";

/**
 * How long a running job must be without a living worker before it counts as orphaned, s. If a worker has no lock, an
 * expired row is the only evidence that it died, so the time is longer. It is longest for Python workers, because they
 * do not end their jobs when they cannot reach the database.
 */
const orphanedAfter: Record<Liveness, number> = { lock: 9, lease: 9 + leaseGraceSeconds, row: 300 };
/** 8 MB of the table per statement, and at most 64 MB per pass: a table of 1 GB is swept in under three minutes. */
const pagesPerStatement = 1_000;
const pagesPerPass = 8_000;

interface SweepState {
  /**
   * True if this statement acquired the sweep lock and deleted the expired rows of its range; false if another process
   * holds the lock.
   */
  acquired: boolean;
  /** Pages of the jobs table. */
  pages: number;
  /** True if jobs of this queue run. */
  running: boolean;
}

/** Decides how to change one locked row. Returns null if the row must not be swept any more. */
type Sweep = (row: Row, clock: number) => RowChange | null;

export class Sweeper {
  readonly #workers: WorkerRows;
  readonly #running: RunningJobs;
  /** By owner: the time since which its running jobs have had no living worker, by performance.now(). */
  readonly #orphanedSince = new Map<string, number>();
  /** If the database does not respond for longer than this, s, the time counts as a gap (see OutageDetector). */
  #gapSeconds = 0;
  /** The page of the jobs table at which the next deletion of expired rows begins. */
  #nextPage = 0;

  constructor(
    private readonly session: TableSession,
    private readonly rows: RowStore,
    private readonly queueName: string,
    private readonly logger: Logger,
  ) {
    this.#workers = new WorkerRows(session, queueName);
    this.#running = new RunningJobs(session, rows, queueName);
  }

  /** Takes the rows of workers that `saveWorker` has returned. The next query for workers may then be unnecessary. */
  onWorkerRows(workers: readonly WorkerAge[]): void {
    this.#workers.onUpdate(workers, this.#gapSeconds);
  }

  /** Requeues or fails the jobs of dead workers. Returns their keys. */
  async sweepLost(limits: SweepLimits): Promise<string[]> {
    this.#gapSeconds = 2 * limits.checkInterval + 1;
    if (this.#workers.hasNoSuspect(limits.checkInterval + 1)) return [];
    const workers = await this.#workers.read(this.#gapSeconds);
    const swept: string[] = [];
    for (const id of this.#workers.suspects(workers)) {
      if (!(await this.#workers.isDead(id))) continue;
      swept.push(...(await this.#takeOver(id, limits)));
    }
    return swept;
  }

  async #takeOver(workerId: string, { lostLimit, failedTtl }: SweepLimits): Promise<string[]> {
    const { runningOfWorker, removeWorker } = this.session.statements;
    const found = await this.session.pool.query<{ key: string; token: number }>(runningOfWorker, [
      this.queueName,
      workerId,
    ]);
    const tokenOf = new Map(found.map(({ key, token }) => [key, token]));
    const { keys, isComplete } = await this.#sweep([...tokenOf.keys()], (row, clock) => {
      const belongsToWorker =
        row.token === tokenOf.get(row.key) && isRunning(row) && read(row)?.workerId === workerId;
      return belongsToWorker
        ? loseJob(row, clock, lostLimit, failedTtl, hadStarted(row), this.session.maxBytes)
        : null;
    });
    // If jobs are left, the worker's row stays, and the next sweep finds the dead worker again.
    if (isComplete) {
      await this.session.pool.query(removeWorker, [workerId]);
      this.#workers.forget(workerId);
    }
    if (keys.length > 0)
      this.logger.warn({ lostWorker: workerId, jobs: keys.length }, "worker died, its jobs were taken over");
    return keys;
  }

  /** Ends stuck jobs, takes over orphaned jobs, deletes expired rows. Returns the keys of stuck and orphaned jobs. */
  async sweepStuck(limits: SweepLimits): Promise<string[]> {
    this.#gapSeconds = 2 * limits.checkInterval + 1;
    if (!(await this.#deleteExpired())) {
      this.#orphanedSince.clear();
      this.#running.forgetAll();
      return [];
    }
    const { lockSweep, unlockSweep } = this.session.statements;
    const work = () => this.#sweepRunning(limits);
    // Behind a transaction pooler no session can hold a lock. Several sweepers at the same time do no harm, only more
    // work.
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
    const workers = await this.#workers.read(this.#gapSeconds);
    const { jobs, clock } = await this.#running.list();
    if (!this.#workers.outage.reachableFor(recoverySeconds)) return [];
    const { orphans, owned } = await this.#splitByWorker(jobs, workers);
    const lost = await this.#takeOverOrphans(orphans, limits);
    const ended = await this.#endStuck(owned, workers, clock, limits);
    return [...lost, ...ended];
  }

  /**
   * Returns the jobs whose worker is gone (`orphans`), and the jobs that may be ended because of their limits
   * (`owned`). A job is in neither list if its TypeScript worker may have died but has not been missing for long
   * enough. If that worker has died, the job must run again, even if it has exceeded its limits.
   */
  async #splitByWorker(jobs: readonly RunningJob[], workers: readonly WorkerAge[]) {
    const alive = new Set(workers.filter((worker) => worker.alive).map((worker) => worker.worker_id));
    const dead = new Map<string, boolean>();
    const isDead = async (id: string) => {
      const answer = dead.get(id) ?? (await this.#workers.isDead(id));
      dead.set(id, answer);
      return answer;
    };
    const orphans: RunningJob[] = [];
    const owned: RunningJob[] = [];
    const ownersSeen = new Set<string>();
    const now = performance.now();
    for (const job of jobs) {
      const workerId = job.limits?.workerId ?? "";
      if (alive.has(workerId) || job.limits === null) {
        owned.push(job);
        continue;
      }
      // A Python worker writes its id into the job only when it starts the job. Until then the time is kept for each
      // claim.
      const owner = workerId ? `worker ${workerId}` : `claim ${job.token} ${job.key}`;
      ownersSeen.add(owner);
      const since = this.#orphanedSince.get(owner) ?? now;
      this.#orphanedSince.set(owner, since);
      const liveness = livenessOf(workerId);
      const isOver = now - since >= orphanedAfter[liveness] * 1_000;
      if (liveness === "row") (isOver ? orphans : owned).push(job);
      else if (await isDead(workerId)) {
        if (isOver) orphans.push(job);
      } else if (liveness === "lock") owned.push(job);
    }
    for (const owner of this.#orphanedSince.keys())
      if (!ownersSeen.has(owner)) this.#orphanedSince.delete(owner);
    return { orphans, owned };
  }

  async #takeOverOrphans(
    orphans: readonly RunningJob[],
    { lostLimit, failedTtl }: SweepLimits,
  ): Promise<string[]> {
    const jobOf = new Map(orphans.map((job) => [job.key, job]));
    const { keys } = await this.#sweep([...jobOf.keys()], (row, clock) => {
      const job = jobOf.get(row.key);
      if (job && isSameRun(row, job))
        return loseJob(row, clock, lostLimit, failedTtl, hadStarted(row), this.session.maxBytes);
      if (job) job.readAt = Number.NEGATIVE_INFINITY;
      return null;
    });
    return keys;
  }

  async #endStuck(
    jobs: readonly RunningJob[],
    workers: readonly WorkerAge[],
    listedAt: number,
    { graceSeconds, failedTtl }: SweepLimits,
  ): Promise<string[]> {
    const graceOf = new Map(workers.map(({ worker_id, grace }) => [worker_id, grace]));
    const graceFor = ({ limits }: RunningJob) => graceOf.get(limits?.workerId ?? "") ?? graceSeconds;
    const databaseClock = this.session.pool.clock;
    const setForwardMs = (epochMs: number) => databaseClock.setForwardSince(epochMs);
    const isOver = (job: RunningJob, limits: Parameters<typeof isStuck>[0]) =>
      isStuck(limits, listedAt, graceFor(job), setForwardMs);
    // Read the documents of suspects again, because a heartbeat may have been stored since.
    const suspects = this.#running.stuck(jobs, isOver);
    await this.#running.read(suspects);
    const jobOf = new Map(this.#running.stuck(suspects, isOver).map((job) => [job.key, job]));
    let isClockAhead = false;
    const { keys } = await this.#sweep([...jobOf.keys()], (row, clock) => {
      // If the database's clock was set forward, all running jobs look stuck. Measure the step before a job is ended.
      isClockAhead ||= databaseClock.isAhead(clock);
      const job = jobOf.get(row.key);
      // The documents may have been read before an outage, and this row may have been locked after it.
      if (!job || isClockAhead || !isSameRun(row, job) || !this.#workers.outage.reachableFor(recoverySeconds))
        return null;
      return sweepJob(row, clock, graceFor(job), failedTtl, setForwardMs, this.session.maxBytes);
    });
    if (isClockAhead) await databaseClock.measure();
    return keys;
  }

  /** Changes rows as decided. Rows that another transaction has locked are left for the next sweep. */
  async #sweep(keys: readonly string[], decide: Sweep): Promise<{ keys: string[]; isComplete: boolean }> {
    const decision = (row: Row, clock: number): RowDecision<boolean> => {
      const change = decide(row, clock);
      // With a new token, the previous owner cannot change this row, nor a later job that is stored under its key.
      return { change: change && { ...change, revoke: true }, answer: change !== null };
    };
    const { answers, held } = await this.rows.changeMany(keys, decision);
    if (held.length > 0)
      this.logger.debug(
        { jobs: held.slice(0, 20), count: held.length },
        "could not sweep jobs whose rows another transaction holds; the next sweep tries again",
      );
    const swept = [...answers].flatMap(([key, isSwept]) => (isSwept ? [key] : []));
    return { keys: swept, isComplete: held.length === 0 };
  }

  /**
   * Deletes expired rows, starting where the previous pass ended. A small table is swept completely in each pass, in
   * one statement. A pass in which no job runs takes 1 statement instead of 7. Returns whether jobs run.
   */
  async #deleteExpired(): Promise<boolean> {
    const { sweep, deleteExpired } = this.session.statements;
    const [state] = await this.session.pool.query<SweepState>(sweep, [
      ...this.#pageRange(),
      this.queueName,
      this.session.jobsTable,
    ]);
    this.#workers.outage.onResponse(this.#gapSeconds);
    if (!state) return true;
    const { acquired, pages, running } = state;
    for (let passed = 0; acquired && passed < Math.min(pagesPerPass, pages); ) {
      this.#nextPage = this.#nextPage + pagesPerStatement < pages ? this.#nextPage + pagesPerStatement : 0;
      passed += pagesPerStatement;
      if (passed < Math.min(pagesPerPass, pages))
        await this.session.pool.query(deleteExpired, this.#pageRange());
    }
    return running;
  }

  /** Returns the range of pages for one statement, without the page `to`. */
  #pageRange(): [from: string, to: string] {
    return [`(${this.#nextPage},0)`, `(${this.#nextPage + pagesPerStatement},0)`];
  }
}

const isRunning = ({ status }: Row): boolean => status === "active" || status === "aborting";
