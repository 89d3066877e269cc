/**
 * The only interface between the runtime and storage. Most methods take and return arrays; a single job is an array of
 * one. A broker stores jobs, and keeps them consistent while many processes write at once. What a status means is
 * decided in `transitions.ts`, not here.
 */

import type { Capabilities } from "./core/capabilities.js";
import type { Claim, ClaimedJob, Receipt } from "./core/claim.js";
import type { Status } from "./core/job.js";
import type { EnqueueOutcome, NewJob } from "./core/new-job.js";
import type { ScheduleStore } from "./core/schedule-store.js";
import type { StoredJob } from "./core/stored-job.js";
import type { TransactionClient } from "./core/transaction-client.js";
import type { RowChange } from "./core/transitions.js";

export interface ClaimRequest {
  workerId: string;
  /** Maximum number of jobs to claim. */
  limit: number;
  priorities: readonly [number, number];
  /**
   * True: claims only jobs with a group key, within the limit of running jobs per group. False: only jobs without one.
   */
  grouped: boolean;
  /**
   * Some of the jobs may wait before they start. If the worker dies, jobs of this claim without a heartbeat count as
   * not started.
   */
  mayWait?: boolean;
}

/** The result of one claim. */
export interface ClaimResult {
  jobs: ClaimedJob[];
  /**
   * Another claim with the same request may find more jobs. Also true if rows were found that hold no job: they are set
   * aside, and the jobs behind them must not wait for the next claim by timer.
   */
  more: boolean;
}

/** What a worker knows about its claims when they are compared with storage. */
export interface Reconciliation {
  workerId: string;
  /**
   * The claims that the worker holds: of jobs that run, that wait for a slot, or whose settlement is being recorded.
   */
  held: () => Iterable<Claim>;
  /** The claims whose jobs were run and whose settlements could not be recorded. */
  unrecorded: () => Iterable<Claim>;
  /**
   * Called with each claim of `unrecorded` under which the job no longer runs, for example because others have ended or
   * deleted it. Without this, the worker would keep the claim until it stops.
   */
  forgetUnrecorded: (claim: Claim) => void;
  /** How often a job may be queued again after it was run and lost. */
  lostLimit: number;
  /** Minimum time to keep a failed job, s. */
  failedTtl: number;
}

/** A heartbeat of a running job, with the members that changed. */
export interface Heartbeat extends Claim {
  patch: string;
  removed: readonly string[];
}

/** How one attempt ended, or that it was never started. */
export interface Settlement extends Claim {
  status: "complete" | "failed" | "aborted" | "queued";
  /** Wire members to set, as the text of a JSON object. */
  patch: string;
  removed: readonly string[];
  /** -1 subtracts the attempt again: the run does not count. */
  charge: 0 | -1;
  /** Seconds to keep the row of a finished job; null = for ever, negative = delete it at once. */
  keep: number | null;
  /** When a job that is queued again becomes due, epoch s. */
  scheduled: number;
  /**
   * A job that is queued again without a charge takes the place in the queue that it had before the claim. True: it
   * comes after the jobs that were due in an earlier second.
   */
  behindOthers?: true;
  /**
   * Who is notified of the settlement: false = nobody, true = all listeners of `onJobEvents`, text = one
   * address (`openReplyChannel`).
   */
  awaited: boolean | string;
  /** The result of a complete job as JSON, if it is sent to an address; otherwise null. */
  result: string | null;
  /**
   * True only for a completion: the document is still as the claim left it, and of the members that the patch sets or
   * removes it has only `status` and `touched`.
   */
  unchanged: boolean;
}

/**
 * - `applied`: the settlement is recorded.
 * - `aborted`: an abort came first, and is recorded as the end of the job.
 * - `finished`: the task's own transaction (`finishWith`) came first, and what it recorded is kept.
 * - `lost`: another worker owns the row now; nothing was changed.
 * - `gone`: the row was deleted.
 */
export type SettleResult = "applied" | "aborted" | "finished" | "lost" | "gone";

/**
 * Receives the result of an operation. One promise per job would cost too much at tens of thousands of jobs a second.
 */
export interface Decided<Answer> {
  resolve(answer: Answer): void;
  reject(error: unknown): void;
}

export interface JobFilter {
  /** Only jobs with one of these statuses. */
  statuses: readonly Status[];
  /** Restricts queued jobs: true = only jobs that are due, false = only jobs that are not due yet. If left out: all. */
  due?: boolean | undefined;
  /** Number of jobs to skip. */
  offset: number;
  /** Maximum number of jobs. */
  limit: number;
}

/** Number of a worker's attempts by how they ended. */
export interface WorkerStats {
  complete: number;
  failed: number;
  retried: number;
  aborted: number;
  /** How long the worker has been running, ms. */
  uptime: number;
}

/** A worker, as its row shows it. */
export interface WorkerRow {
  workerId: string;
  stats: WorkerStats;
  /** The `metadata` of the worker's queue. */
  metadata: Record<string, unknown> | null;
  /** Name of the queue. */
  queueKey: string;
  /** How long this worker may exceed a job's timeout, s. Other workers judge its jobs by this. */
  graceSeconds?: number;
}

/** A running job that must end: it was aborted, another worker owns it now, or its row is gone. */
export interface Interrupted {
  key: string;
  reason: "abort" | "lost" | "gone";
}

/** Number of jobs by state. `queued` jobs are due, `scheduled` jobs are not due yet. */
export type JobCounts = Record<
  "queued" | "scheduled" | "active" | "aborting" | "aborted" | "failed" | "complete",
  number
>;

/** A job that ended or is to be aborted. */
export interface JobEvent {
  key: string;
  status: Status;
}

/** The end of a job, sent to the one process that waits for it. */
export interface JobReply extends JobEvent {
  /** The job's result as JSON; null if the job is not complete, or if the result is too long for a notification. */
  result: string | null;
}

export interface SweepLimits {
  /** How long a worker may exceed a timeout before others step in, s. Used if the worker's row does not say it. */
  graceSeconds: number;
  lostLimit: number;
  /** Interval between two checks for dead workers, s. */
  checkInterval: number;
  /** Minimum time to keep a failed job, s. */
  failedTtl: number;
}

/** Which work may come for a worker that has nothing to do. */
export interface NextWork {
  /** When the first waiting job without a group is due, epoch s; null if no such job waits. */
  due: number | null;
  /** True if jobs with a group key wait. */
  grouped: boolean;
  /**
   * True if work may come for which no notification is sent, so that the worker has to look again at the next second.
   * Python sends none when it gives back a running job, and on Redis nobody sends one for a scheduled job.
   */
  unannounced: boolean;
}

/**
 * On PostgreSQL, a stored job that is due within this time notifies the subscribers. A job that is due later notifies
 * nobody.
 */
export const notifyAheadSeconds = 10;

export interface Broker {
  readonly capabilities: Capabilities;
  /** What storage remembers of recurring tasks. */
  readonly schedules: ScheduleStore;

  /** Connects, and creates missing tables. Idempotent. */
  connect(): Promise<void>;
  /** Sends what is still pending, then closes the connections. Idempotent. */
  close(): Promise<void>;
  /** The database's clock, epoch ms, computed from the offset that was measured last. */
  now(): number;

  enqueue(job: NewJob): Promise<EnqueueOutcome>;
  enqueueMany(jobs: readonly NewJob[]): Promise<EnqueueOutcome[]>;
  /** Stores a job inside the caller's own transaction. */
  enqueueWith(client: TransactionClient, job: NewJob): Promise<EnqueueOutcome>;

  /**
   * Maximum time to record a settlement while storage is reachable, s. Other workers leave a job to its living worker
   * for this long.
   */
  readonly recordSeconds: number;
  /** True if the error means that storage is unreachable. The broker logs an outage itself, once. */
  isOutage(error: unknown): boolean;

  claim(request: ClaimRequest): Promise<ClaimResult>;
  /**
   * Restarts the clock of jobs that were claimed and not started yet, so that their timeouts count from now. Returns
   * the jobs that the claims still own, as they are stored now.
   */
  renew(jobs: readonly ClaimedJob[]): Promise<ClaimedJob[]>;
  /** Marks jobs with unreadable documents as failed and keeps their bytes unchanged. Skips jobs that others own now. */
  setAside(claims: readonly Claim[]): Promise<void>;
  /**
   * Returns jobs to the queue that run under a claim of this worker although the worker does not hold them: the
   * response to the claim was lost, or the settlement could not be recorded. A job is returned if two looks in a row
   * find that the worker does not hold it. Its attempt does not count. A job that was run counts as lost, and fails if
   * it was lost more than `lostLimit` times. A job that is to be aborted ends as aborted. Sends no statement while no
   * job can run under a claim of the worker. Returns the keys.
   */
  reconcile(reconciliation: Reconciliation): Promise<string[]>;
  /**
   * Records that the worker died while it ran these jobs. Each job is queued again without counting the attempt, or
   * fails if it was lost more than `lostLimit` times. Skips jobs that others own now.
   */
  recordLost(claims: readonly Claim[], limits: Pick<SweepLimits, "lostLimit" | "failedTtl">): Promise<void>;
  /** True if jobs of this queue with a group key are waiting, so that claiming them is worth a statement. */
  hasGrouped(): Promise<boolean>;
  nextWork(priorities: readonly [number, number]): Promise<NextWork>;
  /**
   * Adds the settlement to the next statement that is sent. A job that is given back (`queued`, with a charge of -1,
   * and not `behindOthers`) takes its previous position. Storage that has no positions puts it in front of all jobs
   * that wait, so of several jobs the last one must be given back first.
   */
  settle(settlement: Settlement, decided: Decided<SettleResult>): void;
  /**
   * Settles a job inside the caller's own transaction and returns a receipt for the settlement that follows when the
   * attempt ends: this settlement counts only if the transaction was rolled back. Returns null, and changes nothing, if
   * the claim does not own the job any more, or if the transaction that the settlement's own receipt names is open or
   * has committed.
   *
   * @throws SaqError no_transaction if the client is not inside a transaction
   */
  finishWith(client: TransactionClient, settlement: Settlement): Promise<Receipt | null>;
  /**
   * Sets members of owned, active jobs and renews their heartbeats. Returns for each claim whether it still owns its
   * job. Waits 8 s for an unreachable database. With `isOver` it waits until `isOver` returns true, for at most the 10
   * minutes for which a worker keeps results.
   */
  heartbeat(changes: readonly Heartbeat[], isOver?: () => boolean): Promise<boolean[]>;
  /**
   * Returns which of these jobs must end. If it is called again with the same claim objects, it reads only the
   * documents that have changed.
   */
  findInterrupted(claims: readonly Claim[]): Promise<Interrupted[]>;

  /**
   * Locks the row, calls `decide`, and stores the change that it returns. Returns the `answer`, or null if the row does
   * not exist in this queue. `clock` is the database's clock, epoch ms.
   */
  updateLocked<T>(
    key: string,
    decide: (row: StoredJob, clock: number) => { change: RowChange | null; answer: T },
  ): Promise<T | null>;
  jobs(keys: readonly string[]): Promise<(StoredJob | null)[]>;
  list(filter: JobFilter): Promise<StoredJob[]>;
  /**
   * Returns jobs of some statuses page by page: about `limit` jobs, and the value of `after` for the next page; null
   * after the last page. "" starts at the beginning. A page may be empty. A job may come twice if storage has no order.
   */
  listAfter(request: {
    statuses: readonly Status[];
    after: string;
    limit: number;
  }): Promise<{ jobs: StoredJob[]; next: string | null }>;
  counts(): Promise<JobCounts>;

  saveWorker(row: WorkerRow, ttlSeconds: number): Promise<void>;
  removeWorker(workerId: string): Promise<void>;
  workers(): Promise<WorkerRow[]>;
  /**
   * Takes the lock that proves that the worker is alive; it ends with this process in any case. Returns a function that
   * releases it.
   */
  holdLiveness(workerId: string): Promise<() => Promise<void>>;
  /** Returns a worker id by which other processes can check that the worker is alive. */
  newWorkerId(): string;
  /**
   * For workers whose row is the only proof that they are alive: how old the last stored heartbeat may be, s. If it is
   * older, the worker ends its jobs, because other workers may take them over some seconds later. It may be shorter
   * while storage is unreachable. Null for workers that hold a lock, because the lock ends with the process.
   *
   * `ttlSeconds`: how long a heartbeat is valid. `marginSeconds`: what the worker needs to end its jobs.
   */
  maxHeartbeatAge(limits: { ttlSeconds: number; marginSeconds: number }): number | null;

  /** Queues the jobs of dead workers again, or fails those lost more than `lostLimit` times. Returns their keys. */
  sweepLost(limits: SweepLimits): Promise<string[]>;
  /**
   * Ends jobs that are stuck beyond all grace, queues jobs without a living worker again, and deletes rows that have
   * expired. Returns the keys of the jobs.
   */
  sweepStuck(limits: SweepLimits): Promise<string[]>;

  /**
   * Calls `wake` if a job may be claimable now or within `notifyAheadSeconds`. Returns a function that unsubscribes.
   */
  subscribe(wake: () => void): Promise<() => Promise<void>>;
  /**
   * Calls `listener` if a job with an awaited end has ended, and if someone other than its worker has ended a job or
   * asked for its abort. Null means that events may have been missed: the listener must look. Without push (poll mode)
   * `listener` is never called, and writers in other languages send no events. A caller that waits must therefore also
   * look from time to time. Returns a function that unsubscribes.
   */
  onJobEvents(listener: (event: JobEvent | null) => void): Promise<() => Promise<void>>;
  /**
   * Calls `listener` with the ends of jobs whose `meta.awaited` is the returned address, for as long as the broker is
   * open. Only those who may read the jobs know the address. Returns null if there is no push.
   */
  openReplyChannel(listener: (answer: JobReply) => void): Promise<string | null>;
  /** True if subscribers are notified at present: false without push, and while the listening connection is lost. */
  readonly isListening: boolean;
}
