/** The broker on PostgreSQL, for one queue on one server. It combines the classes of this folder. */

import { randomBytes } from "node:crypto";
import type {
  Broker,
  ChangedPage,
  ClaimRequest,
  ClaimResult,
  Decided,
  Heartbeat,
  Interrupted,
  JobCounts,
  JobEvent,
  JobFilter,
  JobReply,
  NextWork,
  PageRequest,
  Reconciliation,
  Settlement,
  SettleResult,
  SweepLimits,
  WorkerRow,
  WorkerStats,
} from "../broker.js";
import type { Capabilities } from "../core/capabilities.js";
import type { Claim, ClaimedJob, Receipt } from "../core/claim.js";
import type { EnqueueOutcome, NewJob } from "../core/new-job.js";
import type { StoredJob } from "../core/stored-job.js";
import { isTakenOver } from "../core/stored-job.js";
import type { TransactionClient } from "../core/transaction-client.js";
import { type Decision, heartbeatPatch, loseJob, setsMeta } from "../core/transitions.js";
import { leaseGraceSeconds, newWorkerId } from "../storage/worker-ids.js";
import { withTimeout } from "../timers.js";
import { eventChannel, parseEvent, parseReply, replyChannel, wakeChannel } from "./channels.js";
import { Claimer } from "./claimer.js";
import { isConnectionError, isTransient } from "./connection/errors.js";
import { Enqueuer } from "./enqueuer.js";
import { Finisher } from "./finisher.js";
import { Ownership } from "./ownership.js";
import { PageEditor } from "./page-editor.js";
import type { Row } from "./raw-rows.js";
import { receiptOf } from "./receipt.js";
import { type RowDecision, RowStore } from "./rows.js";
import { PostgresSchedules } from "./schedules.js";
import { Settler, settleTimeoutMs } from "./settler.js";
import { Reconciler } from "./sweep/reconciler.js";
import { Sweeper } from "./sweep/sweeper.js";
import type { WorkerAge } from "./sweep/worker-rows.js";
import type { TableSession } from "./table-session.js";

const closeTimeoutMs = 2_000;

/** How long recording a lost job waits for the database. After that, the sweepers of other workers record it. */
const loseTimeoutMs = 8_000;

/** How long a heartbeat waits for a row that another transaction has locked. */
const heartbeatTimeoutMs = 30_000;

/** A worker without a lock ends its jobs at most this long before other workers may take them over, s. */
const maxLeaseMarginSeconds = 16;

export interface PostgresBrokerOptions {
  queueName: string;
  failedTtl: number;
  /** Maximum number of jobs of one group that run at the same time. */
  groupConcurrency: number;
}

export class PostgresBroker implements Broker {
  readonly capabilities: Capabilities;
  readonly schedules: PostgresSchedules;
  readonly #session: TableSession;
  readonly #queueName: string;
  readonly #rows: RowStore;
  readonly #pages: PageEditor;
  readonly #enqueuer: Enqueuer;
  readonly #reconciler: Reconciler;
  readonly #claimer: Claimer;
  readonly #settler: Settler;
  readonly #finisher: Finisher;
  readonly #ownership: Ownership;
  readonly #sweeper: Sweeper;
  #closed = false;

  constructor(session: TableSession, { queueName, failedTtl, groupConcurrency }: PostgresBrokerOptions) {
    const logger = session.pool.logger;
    this.#session = session.retain();
    this.capabilities = {
      storage: "PostgreSQL",
      transactions: true,
      push: !session.pool.behindPooler,
      groups: true,
      priorities: true,
      bulk: true,
    };
    this.#queueName = queueName;
    this.#rows = new RowStore(session, queueName);
    this.#pages = new PageEditor(session, this.#rows, queueName);
    this.#enqueuer = new Enqueuer(session, this.#rows, queueName);
    this.schedules = new PostgresSchedules(session, this.#enqueuer, queueName);
    this.#reconciler = new Reconciler(session, this.#rows, queueName, logger);
    this.#claimer = new Claimer(session, this.#rows, this.#reconciler, queueName, groupConcurrency, logger);
    this.#finisher = new Finisher(session, queueName);
    this.#settler = new Settler(session, this.#rows, this.#finisher, queueName, failedTtl);
    this.#ownership = new Ownership(session, this.#rows, queueName);
    this.#sweeper = new Sweeper(session, this.#rows, queueName, logger);
  }

  connect(): Promise<void> {
    return this.#session.connect();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const drained = Promise.all([this.#enqueuer.drained(), this.#settler.drained()]);
    // Statements wait for minutes for an unreachable database; closing does not.
    await withTimeout(closeTimeoutMs, drained);
    await this.#session.pool.release();
  }

  now(): number {
    return this.#session.pool.clock.now();
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
    return this.#session.pool.recordSeconds;
  }

  isOutage(error: unknown): boolean {
    return isConnectionError(error);
  }

  claim(request: ClaimRequest): Promise<ClaimResult> {
    return this.#claimer.claim(request);
  }

  renew(jobs: readonly ClaimedJob[]): Promise<ClaimedJob[]> {
    return this.#claimer.renew(jobs);
  }

  setAside(claims: readonly Claim[]): Promise<void> {
    return this.#claimer.setAside(claims);
  }

  async recordLost(
    claims: readonly Claim[],
    { lostLimit, failedTtl }: Pick<SweepLimits, "lostLimit" | "failedTtl">,
  ): Promise<void> {
    const loseOne = (claim: Claim) =>
      this.#rows.changeWhenFree(
        claim.key,
        (row, clock) => {
          const owned = receiptOf(claim);
          const isOurs = row.token === owned.token && !isTakenOver(row, owned);
          if (!isOurs || (row.status !== "active" && row.status !== "aborting"))
            return { change: null, answer: null };
          const change = loseJob(row, clock, lostLimit, failedTtl, true, this.#session.maxBytes);
          return { change, answer: null };
        },
        loseTimeoutMs,
      );
    await Promise.all(claims.map(loseOne));
  }

  reconcile(reconciliation: Reconciliation): Promise<string[]> {
    return this.#reconciler.reconcile(reconciliation);
  }

  async hasGrouped(): Promise<boolean> {
    const [row] = await this.#session.pool.query<{ found: boolean }>(this.#session.statements.hasGrouped, [
      this.#queueName,
    ]);
    return row?.found === true;
  }

  async nextWork([lowest, highest]: readonly [number, number]): Promise<NextWork> {
    const [row] = await this.#session.pool.query<{ due: number | null; grouped: boolean; running: boolean }>(
      this.#session.statements.nextWork,
      [this.#queueName, lowest, highest],
    );
    if (!row) return { due: null, grouped: true, unannounced: true };
    const { due, grouped, running } = row;
    return { due, grouped, unannounced: running };
  }

  get isListening(): boolean {
    return this.#session.pool.listener?.isUp === true;
  }

  settle(settlement: Settlement, decided: Decided<SettleResult>): void {
    this.#settler.settle(settlement, decided);
  }

  finishWith(client: TransactionClient, settlement: Settlement): Promise<Receipt | null> {
    return this.#finisher.finishWith(client, settlement);
  }

  async heartbeat(changes: readonly Heartbeat[], isOver?: () => boolean): Promise<boolean[]> {
    const { rows } = await this.#session.pool.queryWithRetry<{ key: string }>(
      this.#session.statements.heartbeat,
      [
        this.#queueName,
        changes.map((change) => change.key),
        changes.map((change) => receiptOf(change).token),
        changes.map((change) => change.patch),
        changes.map((change) => `{${change.removed.join(",")}}`),
        changes.map((change) => receiptOf(change).workerId),
        changes.map(setsMeta),
      ],
      isOver
        ? { retryIf: (error) => !isOver() && isTransient(error), timeoutMs: settleTimeoutMs }
        : { retryIf: isTransient },
    );
    const updated = new Set(rows.map((row) => row.key));
    // In parallel: one after another, a locked row would delay all rows after it.
    return Promise.all(changes.map((change) => updated.has(change.key) || this.#heartbeatAlone(change)));
  }

  /**
   * Sends the heartbeat of one job that the statement left out: SQL cannot read its document, its row was locked, or
   * is not ours.
   */
  async #heartbeatAlone(change: Heartbeat): Promise<boolean> {
    const { key, removed } = change;
    const owned = receiptOf(change);
    const decide = (row: Row): RowDecision<boolean> => {
      if (row.token !== owned.token || row.status !== "active" || isTakenOver(row, owned))
        return { change: null, answer: false };
      return { change: { status: "active", patch: heartbeatPatch(row, change), removed }, answer: true };
    };
    return (await this.#rows.changeWhenFree(key, decide, heartbeatTimeoutMs)) === true;
  }

  findInterrupted(claims: readonly Claim[]): Promise<Interrupted[]> {
    return this.#ownership.interrupted(claims);
  }

  async updateLocked<T>(
    key: string,
    decide: (row: StoredJob, clock: number) => Decision<T>,
  ): Promise<T | null> {
    await this.connect();
    return this.#rows.change(key, decide);
  }

  async changePage<T>(
    request: PageRequest,
    decide: (row: StoredJob, clock: number) => Decision<T> | null,
  ): Promise<ChangedPage<T>> {
    await this.connect();
    return this.#pages.change(request, decide);
  }

  async jobs(keys: readonly string[]): Promise<(StoredJob | null)[]> {
    await this.connect();
    return this.#rows.fetch(keys);
  }

  async list(filter: JobFilter): Promise<StoredJob[]> {
    await this.connect();
    return this.#rows.list(filter);
  }

  async listAfter(request: Parameters<Broker["listAfter"]>[0]) {
    await this.connect();
    const jobs = await this.#rows.listAfter(request);
    return { jobs, next: jobs.length === request.limit ? (jobs.at(-1)?.key ?? null) : null };
  }

  async counts(): Promise<JobCounts> {
    await this.connect();
    return this.#rows.counts();
  }

  async saveWorker(
    { workerId, stats, metadata, queueKey, graceSeconds }: WorkerRow,
    ttlSeconds: number,
  ): Promise<void> {
    const sentAt = performance.now();
    const workers = await this.#session.pool.query<WorkerAge>(this.#session.statements.saveWorker, [
      workerId,
      JSON.stringify({ ...stats, graceSeconds }),
      ttlSeconds,
      JSON.stringify(metadata),
      queueKey,
    ]);
    // Sent every few seconds, so that a step of the database's clock is noticed soon and at no extra cost.
    if (workers[0]) this.#session.pool.clock.compareWith(workers[0].clock, sentAt);
    this.#sweeper.onWorkerRows(workers);
  }

  async removeWorker(workerId: string): Promise<void> {
    this.#reconciler.forget(workerId);
    await this.#session.pool.query(this.#session.statements.removeWorker, [workerId]);
  }

  async workers(): Promise<WorkerRow[]> {
    await this.connect();
    const rows = await this.#session.pool.query<{
      worker_id: string;
      stats: WorkerStats & { graceSeconds?: unknown };
      metadata: Record<string, unknown> | null;
      queue_key: string;
      alive: boolean;
    }>(this.#session.statements.workers, [this.#queueName]);
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

  async holdLiveness(workerId: string): Promise<() => Promise<void>> {
    return (await this.#session.pool.listener?.holdLiveness(workerId)) ?? (async () => {});
  }

  newWorkerId(): string {
    return newWorkerId(this.#session.pool.behindPooler ? "lease" : "lock");
  }

  maxHeartbeatAge({ ttlSeconds, marginSeconds }: Parameters<Broker["maxHeartbeatAge"]>[0]): number | null {
    if (!this.#session.pool.behindPooler) return null;
    return ttlSeconds + leaseGraceSeconds - Math.min(marginSeconds, maxLeaseMarginSeconds);
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

  async onJobEvents(listener: (event: JobEvent | null) => void): Promise<() => Promise<void>> {
    await this.connect();
    return this.#listen(eventChannel(this.#queueName), (text) => {
      const event = text === null ? null : parseEvent(text);
      if (event || text === null) listener(event);
    });
  }

  async openReplyChannel(listener: (reply: JobReply) => void): Promise<string | null> {
    await this.connect();
    if (!this.#session.pool.listener) return null;
    const address = randomBytes(16).toString("base64url");
    await this.#listen(replyChannel(address), (text) => {
      const reply = text === null ? null : parseReply(text);
      if (reply) listener(reply);
    });
    return address;
  }

  async #listen(channel: string, subscriber: (payload: string | null) => void) {
    return (await this.#session.pool.listener?.subscribe(channel, subscriber)) ?? (async () => {});
  }
}
