/**
 * Cleans a queue: jobs of dead workers (every 2 s, cheap while nobody dies), stuck jobs and rows past their time
 * (every 10 s). Any number of processes may sweep; one at a time works on a queue, and every single change is decided
 * again under the row's lock, so that a second sweeper does no harm (D-15, D-24).
 */
import type { RowChange, StoredJob, SweepLimits } from "../broker.js";
import { isStuck } from "../job.js";
import type { Logger } from "../logger.js";
import { type Decision, loseJob, read, sweepJob } from "../transitions.js";
import type { RowStore } from "./rows.js";
import { isSameRun, type RunningJob, RunningJobs } from "./running-jobs.js";
import type { PostgresServer } from "./server.js";
import { hadStarted } from "./started.js";
import { newToken } from "./token.js";
import { type Liveness, leaseGraceSeconds, livenessOf } from "./worker-ids.js";
import { returnSeconds, type WorkerAge, Workers } from "./workers.js";

/**
 * How long a running job has been without a living worker before it is called orphaned, s. Of a worker that holds no
 * lock silence is all there is to go by, and Python's do not end their jobs when they are cut off (D-10).
 */
const orphanedAfter: Record<Liveness, number> = { lock: 9, lease: 9 + leaseGraceSeconds, row: 300 };
/** 8 MB of table per statement, at most 64 MB per pass: a table of 1 GB is gone through in under three minutes. */
const blocksPerStatement = 1_000;
const blocksPerPass = 8_000;

interface SweepLeft {
  /** This sweep did its part; otherwise another one is at it. */
  got: boolean;
  blocks: number;
  running: boolean;
}

/** A decision about one row that is to be swept; null when it is not to be any more. */
type Sweep = (row: StoredJob, clock: number) => RowChange | null;

export class Sweeper {
  readonly #workers: Workers;
  readonly #running: RunningJobs;
  /** Since when a running job has been without a living worker, by owner. Times here are performance.now(). */
  readonly #orphanedSince = new Map<string, number>();
  /** Without a look for so long, the sweeper did not see the database. */
  #gapSeconds = 0;
  #block = 0;

  constructor(
    private readonly server: PostgresServer,
    private readonly rows: RowStore,
    private readonly queueName: string,
    private readonly logger: Logger,
  ) {
    this.#workers = new Workers(server, queueName);
    this.#running = new RunningJobs(server, rows, queueName);
  }

  /** A beat has answered what a look for workers would have. */
  heard(workers: readonly WorkerAge[]): void {
    this.#workers.heard(workers, this.#gapSeconds);
  }

  /** Requeues or fails what dead workers left behind. Answers the keys. */
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
    const { runningOf, retire } = this.server.statements;
    const found = await this.server.query<{ key: string; token: number }>(runningOf, [
      this.queueName,
      workerId,
    ]);
    const tokenOf = new Map(found.map(({ key, token }) => [key, token]));
    const { keys, isComplete } = await this.#sweep([...tokenOf.keys()], (row, clock) => {
      const isIts = row.token === tokenOf.get(row.key) && isRunning(row) && read(row)?.workerId === workerId;
      return isIts ? loseJob(row, clock, lostLimit, failedTtl, hadStarted(row)) : null;
    });
    // Otherwise it is found dead again at the next look.
    if (isComplete) {
      await this.server.query(retire, [workerId]);
      this.#workers.forget(workerId);
    }
    if (keys.length > 0)
      this.logger.warn({ lostWorker: workerId, jobs: keys.length }, "worker died, its jobs were taken over");
    return keys;
  }

  /** Ends stuck jobs, takes over orphans, deletes rows past their time. Answers the keys of swept jobs. */
  async sweepStuck(limits: SweepLimits): Promise<string[]> {
    this.#gapSeconds = 2 * limits.lookEvery + 1;
    if (!(await this.#deleteExpired())) {
      this.#orphanedSince.clear();
      this.#running.forgetAll();
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
    const workers = await this.#workers.look(this.#gapSeconds);
    const { jobs, clock } = await this.#running.look();
    if (!this.#workers.sight.lasts(returnSeconds)) return [];
    const { orphans, owned } = await this.#withoutWorker(jobs, workers);
    const lost = await this.#lose(orphans, limits);
    const ended = await this.#endStuck(owned, workers, clock, limits);
    return [...lost, ...ended];
  }

  /**
   * Jobs whose worker is gone, and those that may be judged by their limits: of a worker of ours whose row is over,
   * nobody knows yet whether it died, and then its job is to run again whatever its limits say.
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
      // Python names no worker between claim and start: there each claim has a time of its own.
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
    const databaseClock = this.server.clock;
    const setForward = (epochMs: number) => databaseClock.setForwardSince(epochMs);
    const isOver = (job: RunningJob, limits: Parameters<typeof isStuck>[0]) =>
      isStuck(limits, seenAt, graceFor(job), setForward);
    // A sign of life may have come since its document was read.
    const suspects = this.#running.stuck(jobs, isOver);
    await this.#running.read(suspects);
    const jobOf = new Map(this.#running.stuck(suspects, isOver).map((job) => [job.key, job]));
    let isClockAhead = false;
    const { keys } = await this.#sweep([...jobOf.keys()], (row, clock) => {
      // After a step of the database's clock every running job looks stuck: measure the step before judging.
      isClockAhead ||= databaseClock.isAhead(clock);
      const job = jobOf.get(row.key);
      // The answer may have come from before an outage, and this lock from after it.
      if (!job || isClockAhead || !isSameRun(row, job) || !this.#workers.sight.lasts(returnSeconds))
        return null;
      return sweepJob(row, clock, graceFor(job), failedTtl, setForward);
    });
    if (isClockAhead) await databaseClock.measure();
    return keys;
  }

  /** Rows that somebody's transaction holds, or that cannot be changed, are left for the next sweep. */
  async #sweep(keys: readonly string[], decide: Sweep): Promise<{ keys: string[]; isComplete: boolean }> {
    const decision = (row: StoredJob, clock: number): Decision<boolean> => {
      const change = decide(row, clock);
      // Whoever held the row must not end it, nor what is stored under its key later.
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
    this.#workers.sight.looked(this.#gapSeconds);
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
}

const isRunning = ({ status }: StoredJob): boolean => status === "active" || status === "aborting";
