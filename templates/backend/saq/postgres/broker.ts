/** The broker on PostgreSQL, for one queue on one server. It combines the classes of this folder. */
import { randomBytes } from "node:crypto";
import type {
  Broker,
  Claim,
  ClaimAnswer,
  ClaimedJob,
  ClaimRequest,
  Decided,
  Interrupted,
  JobAnswer,
  JobCounts,
  JobEvent,
  JobFilter,
  Outlook,
  Reconciliation,
  Settlement,
  SettleResult,
  StoredJob,
  SweepLimits,
  Touch,
  WorkerRow,
  WorkerStats,
} from "../broker.js";
import type { EnqueueOutcome, NewJob } from "../new-job.js";
import type { TransactionClient } from "../tasks/task.js";
import { type Decision, isTakenOver, loseJob } from "../transitions.js";
import { within } from "../within.js";
import { Acknowledger, keepPatienceMs } from "./acknowledger.js";
import { answerChannel, eventChannel, parseAnswer, parseEvent, wakeChannel } from "./channels.js";
import { Claimer } from "./claimer.js";
import { isConnectionError, isPassing } from "./connection.js";
import { Enqueuer } from "./enqueuer.js";
import { Finisher } from "./finisher.js";
import { Ownership } from "./ownership.js";
import { Reconciler } from "./reconciler.js";
import { RowStore } from "./rows.js";
import { PostgresSchedules } from "./schedules.js";
import type { PostgresServer } from "./server.js";
import { Sweeper } from "./sweeper.js";
import { leaseGraceSeconds, newWorkerId } from "./worker-ids.js";
import type { WorkerAge } from "./workers.js";

const closePatienceMs = 2_000;

/** How long recording a lost job waits for the database. After that, the sweepers of other workers record it. */
const losePatienceMs = 8_000;

/** How long a heartbeat waits for a row that another transaction has locked. */
const touchPatienceMs = 30_000;

export interface PostgresBrokerOptions {
  queueName: string;
  failedTtl: number;
  /** Maximum number of jobs of one group that run at the same time. */
  groupConcurrency: number;
}

export class PostgresBroker implements Broker {
  readonly schedules: PostgresSchedules;
  readonly #server: PostgresServer;
  readonly #queueName: string;
  readonly #rows: RowStore;
  readonly #enqueuer: Enqueuer;
  readonly #reconciler: Reconciler;
  readonly #claimer: Claimer;
  readonly #acknowledger: Acknowledger;
  readonly #finisher: Finisher;
  readonly #ownership: Ownership;
  readonly #sweeper: Sweeper;
  #closed = false;

  constructor(server: PostgresServer, { queueName, failedTtl, groupConcurrency }: PostgresBrokerOptions) {
    const logger = server.options.logger;
    this.#server = server.retain();
    this.#queueName = queueName;
    this.#rows = new RowStore(server, queueName);
    this.#enqueuer = new Enqueuer(server, this.#rows, queueName);
    this.schedules = new PostgresSchedules(server, this.#enqueuer, queueName);
    this.#reconciler = new Reconciler(server, this.#rows, queueName, logger);
    this.#claimer = new Claimer(server, this.#rows, this.#reconciler, queueName, groupConcurrency, logger);
    this.#finisher = new Finisher(server, queueName);
    this.#acknowledger = new Acknowledger(server, this.#rows, this.#finisher, queueName, failedTtl);
    this.#ownership = new Ownership(server, this.#rows, queueName);
    this.#sweeper = new Sweeper(server, this.#rows, queueName, logger);
  }

  connect(): Promise<void> {
    return this.#server.connect();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const drained = Promise.all([this.#enqueuer.drained(), this.#acknowledger.drained()]);
    // Statements wait for minutes for an unreachable database; closing does not.
    await within(closePatienceMs, drained);
    await this.#server.release();
  }

  now(): number {
    return this.#server.now();
  }

  async enqueue(job: NewJob): Promise<EnqueueOutcome> {
    await this.connect();
    return this.#enqueuer.enqueue(job);
  }

  async enqueueMany(jobs: readonly NewJob[]): Promise<EnqueueOutcome[]> {
    await this.connect();
    return this.#enqueuer.enqueueMany(jobs);
  }

  async enqueueWith(client: TransactionClient, job: NewJob): Promise<EnqueueOutcome> {
    await this.connect();
    return this.#enqueuer.enqueueWith(client, job);
  }

  get recordSeconds(): number {
    return this.#server.recordSeconds;
  }

  isOutage(error: unknown): boolean {
    return isConnectionError(error);
  }

  claim(request: ClaimRequest): Promise<ClaimAnswer> {
    return this.#claimer.claim(request);
  }

  renew(jobs: readonly ClaimedJob[]): Promise<ClaimedJob[]> {
    return this.#claimer.renew(jobs);
  }

  setAside(claims: readonly Claim[]): Promise<void> {
    return this.#claimer.setAside(claims);
  }

  async lose(
    claims: readonly Claim[],
    { lostLimit, failedTtl }: Pick<SweepLimits, "lostLimit" | "failedTtl">,
  ): Promise<void> {
    const loseOne = (claim: Claim) =>
      this.#rows.changeWhenFree(
        claim.key,
        (row, clock) => {
          const isOurs = row.token === claim.token && !isTakenOver(row, claim);
          if (!isOurs || (row.status !== "active" && row.status !== "aborting"))
            return { change: null, answer: null };
          return { change: loseJob(row, clock, lostLimit, failedTtl), answer: null };
        },
        losePatienceMs,
      );
    await Promise.all(claims.map(loseOne));
  }

  reconcile(reconciliation: Reconciliation): Promise<string[]> {
    return this.#reconciler.reconcile(reconciliation);
  }

  async hasGrouped(): Promise<boolean> {
    const [row] = await this.#server.query<{ found: boolean }>(this.#server.statements.hasGrouped, [
      this.#queueName,
    ]);
    return row?.found === true;
  }

  async outlook([lowest, highest]: readonly [number, number]): Promise<Outlook> {
    const [row] = await this.#server.query<{ due: number | null; grouped: boolean; running: boolean }>(
      this.#server.statements.outlook,
      [this.#queueName, lowest, highest],
    );
    return row ?? { due: null, grouped: true, running: true };
  }

  get isListening(): boolean {
    return this.#server.listener?.isUp === true;
  }

  settle(settlement: Settlement, decided: Decided<SettleResult>): void {
    this.#acknowledger.settle(settlement, decided);
  }

  finishWith(
    client: TransactionClient,
    settlement: Settlement,
    earlier: string | null,
  ): Promise<string | null> {
    return this.#finisher.finishWith(client, settlement, earlier);
  }

  async touch(changes: readonly Touch[], isOver?: () => boolean): Promise<boolean[]> {
    const { rows } = await this.#server.queryAgain<{ key: string }>(
      this.#server.statements.touch,
      [
        this.#queueName,
        changes.map((change) => change.key),
        changes.map((change) => change.token),
        changes.map((change) => change.patch),
        changes.map((change) => `{${change.removed.join(",")}}`),
        changes.map((change) => change.workerId),
      ],
      isOver
        ? { again: (error) => !isOver() && isPassing(error), timeoutMs: keepPatienceMs }
        : { again: isPassing },
    );
    const touched = new Set(rows.map((row) => row.key));
    // In parallel: one after another, a locked row would delay all rows after it.
    return Promise.all(changes.map((change) => touched.has(change.key) || this.#touchAlone(change)));
  }

  /** Touches one job that the statement left out: SQL cannot read its document, its row was locked, or is not ours. */
  async #touchAlone(touch: Touch): Promise<boolean> {
    const { key, token, patch, removed } = touch;
    const decide = (row: StoredJob): Decision<boolean> => {
      if (row.token !== token || row.status !== "active" || isTakenOver(row, touch))
        return { change: null, answer: false };
      return { change: { status: "active", patch, removed }, answer: true };
    };
    return (await this.#rows.changeWhenFree(key, decide, touchPatienceMs)) === true;
  }

  interrupted(claims: readonly Claim[]): Promise<Interrupted[]> {
    return this.#ownership.interrupted(claims);
  }

  async change<T>(key: string, decide: (row: StoredJob, clock: number) => Decision<T>): Promise<T | null> {
    await this.connect();
    return this.#rows.change(key, decide);
  }

  async jobs(keys: readonly string[]): Promise<(StoredJob | null)[]> {
    await this.connect();
    return this.#rows.fetch(keys);
  }

  async list(filter: JobFilter): Promise<StoredJob[]> {
    await this.connect();
    return this.#rows.list(filter);
  }

  async page(request: Parameters<Broker["page"]>[0]): Promise<StoredJob[]> {
    await this.connect();
    return this.#rows.page(request);
  }

  async counts(): Promise<JobCounts> {
    await this.connect();
    return this.#rows.counts();
  }

  async beat(
    { workerId, stats, metadata, queueKey, graceSeconds }: WorkerRow,
    ttlSeconds: number,
  ): Promise<void> {
    const sentAt = performance.now();
    const workers = await this.#server.query<WorkerAge>(this.#server.statements.beat, [
      workerId,
      JSON.stringify({ ...stats, graceSeconds }),
      ttlSeconds,
      JSON.stringify(metadata),
      queueKey,
    ]);
    // A beat is sent every few seconds, so that a step of the database's clock is noticed soon and at no extra cost.
    if (workers[0]) this.#server.clock.saw(workers[0].clock, sentAt);
    this.#sweeper.heard(workers);
  }

  async retire(workerId: string): Promise<void> {
    this.#reconciler.forget(workerId);
    await this.#server.query(this.#server.statements.retire, [workerId]);
  }

  async workers(): Promise<WorkerRow[]> {
    await this.connect();
    const rows = await this.#server.query<{
      worker_id: string;
      stats: WorkerStats & { graceSeconds?: unknown };
      metadata: Record<string, unknown> | null;
      queue_key: string;
      alive: boolean;
    }>(this.#server.statements.workers, [this.#queueName]);
    return rows
      .filter((row) => row.alive)
      .map(
        ({ worker_id: workerId, stats: { graceSeconds: _, ...stats }, metadata, queue_key: queueKey }) => ({
          workerId,
          stats,
          metadata,
          queueKey,
        }),
      );
  }

  async vouchFor(workerId: string): Promise<() => Promise<void>> {
    return (await this.#server.listener?.vouchFor(workerId)) ?? (async () => {});
  }

  newWorkerId(): string {
    return newWorkerId(this.#server.options.plain ? "lease" : "lock");
  }

  get leaseGraceSeconds(): number | null {
    return this.#server.options.plain ? leaseGraceSeconds : null;
  }

  sweepLost(limits: SweepLimits): Promise<string[]> {
    return this.#sweeper.sweepLost(limits);
  }

  sweepStuck(limits: SweepLimits): Promise<string[]> {
    return this.#sweeper.sweepStuck(limits);
  }

  subscribe(wake: () => void): Promise<() => Promise<void>> {
    // `saq:dequeue` is a message of a Python worker to its own process.
    return this.#listen(wakeChannel(this.#queueName), (text) => text !== "saq:dequeue" && wake());
  }

  async follow(listener: (event: JobEvent | null) => void): Promise<() => Promise<void>> {
    await this.connect();
    return this.#listen(eventChannel(this.#queueName), (text) => {
      const event = text === null ? null : parseEvent(text);
      if (event || text === null) listener(event);
    });
  }

  async answers(listener: (answer: JobAnswer) => void): Promise<string | null> {
    await this.connect();
    if (!this.#server.listener) return null;
    const address = randomBytes(16).toString("base64url");
    await this.#listen(answerChannel(address), (text) => {
      const answer = text === null ? null : parseAnswer(text);
      if (answer) listener(answer);
    });
    return address;
  }

  async #listen(channel: string, subscriber: (payload: string | null) => void) {
    return (await this.#server.listener?.subscribe(channel, subscriber)) ?? (async () => {});
  }
}
