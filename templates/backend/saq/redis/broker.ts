/** The broker on Redis, for one queue. It combines the classes of this folder. */
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
} from "../broker.js";
import { redisCapabilities, requireCapability } from "../core/capabilities.js";
import type { Claim, ClaimedJob, Receipt } from "../core/claim.js";
import { columnSecond } from "../core/job.js";
import type { EnqueueOutcome, NewJob } from "../core/new-job.js";
import { isTakenOver, read, type StoredJob } from "../core/stored-job.js";
import type { Decision } from "../core/transitions.js";
import { newWorkerId } from "../storage/worker-ids.js";
import { withTimeout } from "../timers.js";
import { Claimer } from "./claimer.js";
import type { RedisConnection } from "./connection.js";
import { DueJobs } from "./due-jobs.js";
import { Enqueuer } from "./enqueuer.js";
import { isUnavailable } from "./errors.js";
import { parseNotification } from "./events.js";
import { JobLists } from "./job-lists.js";
import { JobPages } from "./job-pages.js";
import { JobStore } from "./jobs.js";
import { QueueKeys, replyChannel } from "./keys.js";
import { ownersScript } from "./lua/workers.js";
import { receiptOf } from "./receipt.js";
import { RedisSchedules } from "./schedules.js";
import { Settler } from "./settler.js";
import { Sweeper } from "./sweeper.js";
import { maxHeartbeatAge, Workers } from "./workers.js";

const closeTimeoutMs = 2_000;

export interface RedisBrokerOptions {
  queueName: string;
  failedTtl: number;
  /** The queue's limit for each part of a job, bytes. */
  maxBytes: number;
}

export class RedisBroker implements Broker {
  readonly capabilities = redisCapabilities;
  readonly schedules: RedisSchedules;
  readonly recordSeconds = 2;
  readonly #connection: RedisConnection;
  readonly #queueName: string;
  readonly #keys: QueueKeys;
  readonly #jobs: JobStore;
  readonly #lists: JobLists;
  readonly #pages: JobPages;
  readonly #enqueuer: Enqueuer;
  readonly #claimer: Claimer;
  readonly #settler: Settler;
  readonly #workers: Workers;
  readonly #sweeper: Sweeper;
  readonly #dueJobs = new Set<DueJobs>();
  #closed = false;

  constructor(connection: RedisConnection, { queueName, failedTtl, maxBytes }: RedisBrokerOptions) {
    this.#connection = connection.retain();
    this.#queueName = queueName;
    this.#keys = new QueueKeys(queueName, { isCluster: connection.isCluster });
    this.#jobs = new JobStore(connection, this.#keys, queueName, maxBytes);
    this.#lists = new JobLists(connection, this.#keys, queueName, this.#jobs);
    this.#pages = new JobPages(connection, this.#keys, this.#jobs);
    this.#enqueuer = new Enqueuer(connection, this.#keys);
    this.#claimer = new Claimer(connection, this.#keys, this.#jobs, connection.logger);
    this.#claimer.onClaim = (isEmpty) => {
      if (isEmpty) for (const dueJobs of this.#dueJobs) dueJobs.onEmptyClaim();
    };
    this.#settler = new Settler(connection, this.#keys, this.#jobs, failedTtl);
    this.#workers = new Workers(connection, this.#keys);
    this.#sweeper = new Sweeper(connection, this.#keys, this.#jobs, this.#workers, connection.logger);
    this.schedules = new RedisSchedules(connection, this.#keys);
  }

  connect(): Promise<void> {
    return this.#connection.connect();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    // Calls wait for minutes for a server that cannot be reached; closing does not.
    await withTimeout(closeTimeoutMs, Promise.all([this.#enqueuer.drained(), this.#settler.drained()]));
    for (const dueJobs of this.#dueJobs) dueJobs.stop();
    await this.#connection.release();
  }

  now(): number {
    return this.#connection.clock.now();
  }

  async enqueue(job: NewJob): Promise<EnqueueOutcome> {
    await this.connect();
    return this.#enqueuer.enqueue(job);
  }

  async enqueueMany(jobs: readonly NewJob[]): Promise<EnqueueOutcome[]> {
    await this.connect();
    return this.#enqueuer.enqueueMany(jobs);
  }

  async enqueueWith(): Promise<EnqueueOutcome> {
    return this.#refuseTransactions();
  }

  async finishWith(): Promise<Receipt | null> {
    return this.#refuseTransactions();
  }

  #refuseTransactions(): never {
    requireCapability(`Queue "${this.#queueName}"`, "transactions", this.capabilities);
    throw new Error("unreachable");
  }

  isOutage(error: unknown): boolean {
    return isUnavailable(error) || isUnavailable((Object(error) as { cause?: unknown }).cause);
  }

  claim(request: ClaimRequest): Promise<ClaimResult> {
    if (request.grouped) return Promise.resolve({ jobs: [], more: false });
    return this.#claimer.claim(request);
  }

  renew(jobs: readonly ClaimedJob[]): Promise<ClaimedJob[]> {
    return this.#claimer.renew(jobs);
  }

  setAside(claims: readonly Claim[]): Promise<void> {
    return this.#claimer.setAside(claims);
  }

  reconcile(reconciliation: Reconciliation): Promise<string[]> {
    return this.#sweeper.reconcile(reconciliation, (token) => this.#claimer.isInFlight(token));
  }

  recordLost(claims: readonly Claim[], limits: Pick<SweepLimits, "lostLimit" | "failedTtl">): Promise<void> {
    return this.#sweeper.recordLost(claims, limits);
  }

  async hasGrouped(): Promise<boolean> {
    return false;
  }

  async nextWork(): Promise<NextWork> {
    const { incomplete, queued } = this.#keys;
    const [waiting, first] = await Promise.all([
      this.#connection.command(["LINDEX", queued, "0"]),
      this.#connection.command(["ZRANGEBYSCORE", incomplete, "(0", "+inf", "WITHSCORES", "LIMIT", "0", "1"]),
    ]);
    const [, due] = first as string[];
    return {
      due: waiting !== null ? await this.#dueOf(String(waiting)) : due === undefined ? null : Number(due),
      grouped: false,
      unannounced: true,
    };
  }

  /** Returns since when a job in the list of due jobs has been due, epoch s. The list itself does not say it. */
  async #dueOf(id: string): Promise<number> {
    const [job] = await this.#jobs.fetch([this.#keys.jobKey(id)]);
    const fields = job ? read(job) : null;
    const due = fields && (columnSecond(fields) || Math.floor(fields.queued / 1_000));
    return due || Math.floor(this.now() / 1_000);
  }

  settle(settlement: Settlement, decided: Decided<SettleResult>): void {
    this.#settler.settle(settlement, decided);
  }

  heartbeat(changes: readonly Heartbeat[], isOver?: () => boolean): Promise<boolean[]> {
    return this.#settler.heartbeat(changes, isOver);
  }

  async findInterrupted(claims: readonly Claim[]): Promise<Interrupted[]> {
    const owners = (await this.#connection.run(
      ownersScript,
      [this.#keys.claims, ...claims.map(({ key }) => this.#keys.id(key))],
      claims.map((claim) => receiptOf(claim).token),
    )) as string[];
    const unclear = claims.filter((_, index) => owners[index] === "changed");
    const jobs = unclear.length === 0 ? [] : await this.#jobs.fetch(unclear.map(({ key }) => key));
    const jobOf = new Map(jobs.map((job) => [job?.key, job]));
    return claims.flatMap((claim, index): Interrupted[] => {
      const { key } = claim;
      const owner = owners[index] ?? "gone";
      if (owner === "") return [];
      if (owner === "gone" || owner === "lost") return [{ key, reason: owner }];
      const job = jobOf.get(key);
      if (!job) return [{ key, reason: "gone" }];
      if (job.status === "aborting" || job.status === "aborted") return [{ key, reason: "abort" }];
      return job.status === "active" && !isTakenOver(job, receiptOf(claim)) ? [] : [{ key, reason: "lost" }];
    });
  }

  async updateLocked<T>(
    key: string,
    decide: (job: StoredJob, clock: number) => Decision<T>,
  ): Promise<T | null> {
    await this.connect();
    return this.#jobs.change(key, decide);
  }

  async changePage<T>(
    request: PageRequest,
    decide: (job: StoredJob, clock: number) => Decision<T> | null,
  ): Promise<ChangedPage<T>> {
    await this.connect();
    return this.#pages.change(request, decide);
  }

  async jobs(keys: readonly string[]): Promise<(StoredJob | null)[]> {
    await this.connect();
    return this.#jobs.fetch(keys);
  }

  async list(filter: JobFilter): Promise<StoredJob[]> {
    await this.connect();
    return this.#lists.list(filter);
  }

  async listAfter({ statuses, after, limit }: Parameters<Broker["listAfter"]>[0]) {
    await this.connect();
    return this.#lists.scan(statuses, after, limit);
  }

  async counts(): Promise<JobCounts> {
    await this.connect();
    return this.#lists.counts();
  }

  saveWorker(row: WorkerRow, ttlSeconds: number): Promise<void> {
    return this.#workers.save(row, ttlSeconds);
  }

  removeWorker(workerId: string): Promise<void> {
    return this.#workers.remove(workerId);
  }

  async workers(): Promise<WorkerRow[]> {
    await this.connect();
    return this.#workers.list();
  }

  async holdLiveness(workerId: string): Promise<() => Promise<void>> {
    await this.connect();
    return this.#workers.hold(workerId);
  }

  maxHeartbeatAge({ ttlSeconds }: Parameters<Broker["maxHeartbeatAge"]>[0]): number {
    const { isServerDown, availableSince } = this.#connection;
    // Nobody can take over a job while the server is down, and afterwards the workers get time to renew their leases.
    if (isServerDown) return Number.POSITIVE_INFINITY;
    return maxHeartbeatAge(ttlSeconds, availableSince !== Number.POSITIVE_INFINITY);
  }

  newWorkerId(): string {
    return newWorkerId("lease");
  }

  sweepLost(limits: SweepLimits): Promise<string[]> {
    return this.#sweeper.sweepLost(limits);
  }

  sweepStuck(limits: SweepLimits): Promise<string[]> {
    return this.#sweeper.sweepStuck(limits);
  }

  get isListening(): boolean {
    for (const { isUp } of this.#dueJobs) if (isUp) return true;
    return false;
  }

  async subscribe(wake: () => void): Promise<() => Promise<void>> {
    const onFound = (id: string) => {
      // Another id would be in another slot of a cluster, which then refuses the claim.
      if (id.startsWith(this.#keys.id(""))) this.#claimer.expect(id);
    };
    const dueJobs = new DueJobs(this.#connection, this.#keys.queued, wake, onFound);
    await dueJobs.start();
    this.#dueJobs.add(dueJobs);
    return async () => {
      this.#dueJobs.delete(dueJobs);
      dueJobs.stop();
    };
  }

  async onJobEvents(listener: (event: JobEvent | null) => void): Promise<() => Promise<void>> {
    await this.connect();
    return this.#connection.subscribe(
      this.#keys.events,
      (text) => {
        const event = parseNotification(text);
        if (event) listener({ key: event.key, status: event.status });
      },
      () => listener(null),
    );
  }

  async openReplyChannel(listener: (reply: JobReply) => void): Promise<string | null> {
    await this.connect();
    const address = randomBytes(16).toString("base64url");
    await this.#connection.subscribe(
      replyChannel(address),
      (text) => {
        const reply = parseNotification(text);
        if (reply) listener(reply);
      },
      () => {},
    );
    return address;
  }
}
