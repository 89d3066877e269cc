/**
 * The one seam between the runtime and storage. Everything takes and gives arrays; one job is an array of one. A
 * broker stores, and keeps what it stores consistent when many processes act at once; what the states mean is decided
 * above it, in `transitions.ts`.
 */
import type { Status } from "./job.js";
import type { EnqueueOutcome, NewJob } from "./new-job.js";
import type { ScheduleStore } from "./schedule-store.js";
import type { TransactionClient } from "./tasks/task.js";

export interface ClaimRequest {
  workerId: string;
  /** Most jobs to take. */
  limit: number;
  priorities: readonly [number, number];
  /** Jobs with a group key are claimed apart, one per group at a time. */
  grouped: boolean;
  /** Some of the jobs may have to wait before they are started. Should the worker die, they count as not started. */
  ahead?: boolean;
}

/** Proof of ownership: only who holds the row's present token may change a claimed job (5.2). */
export interface Claim {
  key: string;
  token: number;
  /** Who claimed it. Python takes a job over without a token of its own, but writes down its worker. */
  workerId: string;
  /** The row's place among jobs of one second, given back with the job. */
  place: number;
}

/**
 * How a claim ended a document that it found as it was enqueued: with the members `lasting`, which stay, and `passing`,
 * which the job's end replaces. They say that this is the first attempt, whose it is, and when it started.
 */
export interface DocumentEnding {
  readonly lasting: string;
  readonly passing: string;
  /** Epoch ms. */
  readonly started: number;
}

export interface ClaimedJob extends Claim {
  /** When it was due, epoch s: where it goes back to when it is given back. */
  due: number;
  /** As it was enqueued where the claim has only changed how it ends (`ending`); else as the claim has stamped it. */
  document: string;
  ending: DocumentEnding | null;
}

/** What one claim found. */
export interface ClaimAnswer {
  jobs: ClaimedJob[];
  /**
   * Another claim of this kind may find more. True as well when rows were found that hold no job: they are set aside,
   * and what waits behind them must not wait for the next look.
   */
  more: boolean;
}

/** What a worker knows of its claims when storage is compared with them. */
export interface Reconciliation {
  workerId: string;
  /** The claims that the worker holds: of jobs that run, wait for a slot, or whose end is being recorded. */
  held: () => Iterable<Claim>;
  /** The job was run under this claim, and its end could not be recorded. */
  hasRun: (claim: Pick<Claim, "key" | "token">) => boolean;
  /** How often a job that was run may be queued again. */
  lostLimit: number;
  /** Seconds that a failed job is kept at least. */
  failedTtl: number;
}

/** A sign of life of a running job, with what changed. */
export interface Touch extends Claim {
  patch: string;
  removed: readonly string[];
}

/** How one attempt ended, or that it never began. */
export interface Settlement extends Claim {
  status: "complete" | "failed" | "aborted" | "queued";
  /** Wire members to set, the text of a JSON object. */
  patch: string;
  removed: readonly string[];
  /** -1 takes the attempt back: the run does not count. */
  charge: 0 | -1;
  /** A terminal row is kept that many seconds; null = for ever, negative = deleted at once. */
  keep: number | null;
  /** A queued row becomes due at this epoch second. */
  scheduled: number;
  /** Somebody waits for the end of this job, so that it is told: to all that `follow`, or to one address (`answers`). */
  awaited: boolean | string;
  /** What a complete job returned, as JSON, where it goes to an address. */
  result: string | null;
  /** What the document still ends with, where the patch may simply take the place of its passing part. */
  ending: DocumentEnding | null;
  /** The transaction in which the task has finished the job itself; it may have been rolled back. */
  finishedIn: string | null;
}

/**
 * `lost`: another worker owns the row now, nothing was changed. `gone`: the row was deleted. `aborted`: an abort came
 * first and was recorded.
 * `finished`: the task's own transaction came first (`finishedIn`), and what it recorded stands.
 */
export type SettleResult = "applied" | "aborted" | "finished" | "lost" | "gone";

/** Told what became of something: a promise each would cost too much where there are tens of thousands a second. */
export interface Decided<Answer> {
  resolve(answer: Answer): void;
  reject(error: unknown): void;
}

/** A row as it stands. */
export interface StoredJob {
  key: string;
  queue: string;
  status: Status;
  /** The column, epoch seconds. */
  scheduled: number;
  token: number;
  document: string;
  /** Bytes of a document that is too large to be read; `document` is empty then. */
  unreadBytes?: number;
}

/** A change of one row, decided while it is locked. */
export interface RowChange {
  status: Status;
  /** Wire members to set, the text of a JSON object; null leaves the stored bytes untouched. */
  patch: string | null;
  removed: readonly string[];
  scheduled?: number;
  /** The row's old place among jobs of one second (`lock_key`), for a job that is given back. */
  place?: number;
  /** Seconds that the row is kept; null = for ever, negative = deleted. Left out: unchanged. */
  keep?: number | null;
  /** The job is run without others beside it from now on, by one worker at a time; false: as any other again. */
  alone?: boolean;
}

export interface JobFilter {
  statuses: readonly Status[];
  /** Of the queued ones: true = only those that are due, false = only those that are not yet. Left out: all. */
  due?: boolean | undefined;
  offset: number;
  limit: number;
}

export interface WorkerStats {
  complete: number;
  failed: number;
  retried: number;
  aborted: number;
  /** ms */
  uptime: number;
}

export interface WorkerRow {
  workerId: string;
  stats: WorkerStats;
  metadata: Record<string, unknown> | null;
  queueKey: string;
  /** What the worker itself may take on top of a job's timeout, s: others judge its jobs by that. */
  graceSeconds?: number;
}

/** A running job that is to end: it was aborted, another worker owns it now, or its row is gone. */
export interface Interrupted {
  key: string;
  why: "abort" | "lost" | "gone";
}

/** Jobs by state. `queued` are due, `scheduled` are not yet. */
export type JobCounts = Record<
  "queued" | "scheduled" | "active" | "aborting" | "aborted" | "failed" | "complete",
  number
>;

/** A job that ended or is to be aborted. */
export interface JobEvent {
  key: string;
  status: Status;
}

/** The end of a job, told to the one process that waits for it. */
export interface JobAnswer extends JobEvent {
  /** What it returned, as JSON; null when it is not complete, or the result is too long to be told. */
  result: string | null;
}

export interface SweepLimits {
  /** What a worker may take on top of a timeout before others step in, s. Used where its row does not say so. */
  graceSeconds: number;
  lostLimit: number;
  /** How often dead workers are looked for, s. */
  lookEvery: number;
  /** Seconds that a failed job is kept at least. */
  failedTtl: number;
}

/** What may come for a worker that has nothing to do. */
export interface Outlook {
  /** When the first waiting job without a group is due, epoch s; null when none waits. */
  due: number | null;
  /** Jobs wait in groups. */
  grouped: boolean;
  /** Jobs run, here or elsewhere. */
  running: boolean;
}

/** Subscribers are told of a job that is due within that time when it is stored; of a later one nobody is. */
export const toldAheadSeconds = 10;

export interface Broker {
  /** What is remembered of recurring tasks. */
  readonly schedules: ScheduleStore;

  /** Connects and creates the tables where they are missing. Idempotent. */
  connect(): Promise<void>;
  /** Sends what is still to be sent, then closes. Idempotent. */
  close(): Promise<void>;
  /** The database's clock, epoch ms, by the offset measured last. */
  now(): number;

  enqueue(job: NewJob): Promise<EnqueueOutcome>;
  enqueueMany(jobs: readonly NewJob[]): Promise<EnqueueOutcome[]>;
  /** Inside the caller's own transaction. */
  enqueueWith(client: TransactionClient, job: NewJob): Promise<EnqueueOutcome>;

  /**
   * How long it takes at most to record an end while storage can be reached, s. Others leave a job to its living worker
   * for that long.
   */
  readonly recordSeconds: number;
  /** The error says that storage, or the way to it, is away. The broker logs an outage itself, once. */
  isOutage(error: unknown): boolean;

  claim(request: ClaimRequest): Promise<ClaimAnswer>;
  /**
   * Starts the clock of claimed jobs anew that were not started yet, so that their timeouts count from now. Returns
   * those that still are the claim's, as they are stored now.
   */
  renew(jobs: readonly ClaimedJob[]): Promise<ClaimedJob[]>;
  /** Marks jobs as failed whose document cannot be read, their bytes untouched. Skips those that others own now. */
  setAside(claims: readonly Claim[]): Promise<void>;
  /**
   * Puts back jobs that run under a claim of this worker although it does not hold them: the answer to the claim was
   * lost, or the end of the job could not be recorded. A job that nobody holds at two looks in a row goes back into the
   * queue, uncharged unless it was run; one that is to be aborted ends as aborted. Asks nothing of storage while the
   * worker holds no claims. Returns the keys.
   */
  reconcile(reconciliation: Reconciliation): Promise<string[]>;
  /**
   * Records that the worker died while it ran these jobs: each goes back into the queue, uncharged, or fails at its
   * limit. Skips those that others own now.
   */
  lose(claims: readonly Claim[], limits: Pick<SweepLimits, "lostLimit" | "failedTtl">): Promise<void>;
  /** Jobs of this queue with a group key are waiting, so that claiming them is worth a statement. */
  hasGrouped(): Promise<boolean>;
  outlook(priorities: readonly [number, number]): Promise<Outlook>;
  /** Joins the statement that goes out next. */
  settle(settlement: Settlement, decided: Decided<SettleResult>): void;
  /**
   * Records an end inside the caller's own transaction and answers that transaction's name, for `finishedIn`. Null when
   * the job is not the claim's any more, or when `earlier`, such a transaction of the same claim, is open or has
   * committed; then nothing was changed.
   */
  finishWith(
    client: TransactionClient,
    settlement: Settlement,
    earlier: string | null,
  ): Promise<string | null>;
  /**
   * Sets members of owned, active jobs and marks them touched. Returns which claims still own their job. Waits 8 s for
   * a database that is away; with `isOver` for as long as results are kept (10 minutes), or until `isOver` returns
   * true.
   */
  touch(changes: readonly Touch[], isOver?: () => boolean): Promise<boolean[]>;
  /** Of these claims, those that are to end. Asked again with the same objects, it reads only what changed since. */
  interrupted(claims: readonly Claim[]): Promise<Interrupted[]>;

  /**
   * Locks the row, lets `decide` choose, and stores it. Null when the row does not exist in this queue. `clock` is the
   * database's, epoch ms.
   */
  change<T>(
    key: string,
    decide: (row: StoredJob, clock: number) => { change: RowChange | null; answer: T },
  ): Promise<T | null>;
  jobs(keys: readonly string[]): Promise<(StoredJob | null)[]>;
  list(filter: JobFilter): Promise<StoredJob[]>;
  /** Jobs of some statuses by key, ascending, after the given one; "" is the beginning. */
  page(request: { statuses: readonly Status[]; after: string; limit: number }): Promise<StoredJob[]>;
  counts(): Promise<JobCounts>;

  beat(row: WorkerRow, ttlSeconds: number): Promise<void>;
  retire(workerId: string): Promise<void>;
  workers(): Promise<WorkerRow[]>;
  /** Holds the sign of life that ends with this process, whatever happens to it. Answers how to let go. */
  vouchFor(workerId: string): Promise<() => Promise<void>>;
  /** A worker id that other processes can check for life. */
  newWorkerId(): string;
  /**
   * Where only its row says that a worker lives: seconds after the row's time has run out until other workers take over
   * its jobs. The worker must end them itself before. Null where a lock says that it lives, which ends with its
   * process.
   */
  readonly leaseGraceSeconds: number | null;

  /** Requeues or fails the jobs of workers that died. Answers their keys. */
  sweepLost(limits: SweepLimits): Promise<string[]>;
  /** Ends jobs that are stuck past all grace, deletes rows past their time. Answers the swept keys. */
  sweepStuck(limits: SweepLimits): Promise<string[]>;

  /** Calls `wake` when a job may be claimable, or will be within `toldAheadSeconds`. Answers how to stop. */
  subscribe(wake: () => void): Promise<() => Promise<void>>;
  /**
   * Calls `listener` when a job whose end is awaited ended, and when any job was ended or told to abort by others than
   * its worker. Null = some events may have been missed, look. Without push (poll mode) it is never called, and what
   * writers of other languages do is not told: whoever waits looks from time to time as well. Answers how to stop.
   */
  follow(listener: (event: JobEvent | null) => void): Promise<() => Promise<void>>;
  /**
   * Calls `listener` with the ends of jobs whose `meta.awaited` is the address that is answered. Only who may read the
   * jobs knows it. Null where there is no push. For as long as the broker is open.
   */
  answers(listener: (answer: JobAnswer) => void): Promise<string | null>;
  /** Subscribers are told at present: false without push, and while the way to it is lost. */
  readonly isListening: boolean;
}
