/**
 * Runs the jobs of one worker, from the claim to the settlement. It fills the worker's slots, runs attempts, and sends
 * each settlement with the next statement. A slot becomes free when its attempt ends. It does not wait until the
 * settlement is stored.
 */

import type { Interrupted, Settlement } from "../broker.js";
import type { Claim, ClaimedJob } from "../core/claim.js";
import type { JobFields } from "../core/job.js";
import { runsAlone } from "../core/job-meta.js";
import { claimedFields } from "../core/stored-job.js";
import type { TransactionClient } from "../core/transaction-client.js";
import type { Logger } from "../logger.js";
import type { ProblemLog } from "../problem-log.js";
import type { Queue } from "../queue/queue.js";
import { findTask, isThreadTask, type WorkerView } from "../tasks/task.js";
import { aloneGate } from "./alone-gate.js";
import { AloneJobs } from "./alone-jobs.js";
import { Attempt, type AttemptHost } from "./attempt.js";
import { Burst } from "./burst.js";
import { contextsWith, TaskContext } from "./context.js";
import { Fetcher } from "./fetcher.js";
import { type JobHooks, jobHooks } from "./hooks.js";
import { invokeTask } from "./invoke-task.js";
import { ProgressSender } from "./progress-sender.js";
import { TaskServices } from "./services.js";
import { Refusals } from "./settlement/refusals.js";
import { Report } from "./settlement/report.js";
import type { AttemptResult } from "./settlement/settlement.js";
import { release, type SettlementRules, settlementOf } from "./settlement/settlement.js";
import { Settler } from "./settlement/settler.js";
import { finishInTransaction, type TransactionalFinish } from "./settlement/transactional-finish.js";
import { Threads } from "./threads/threads.js";
import { certainSeconds } from "./time-limits.js";

export class Runner implements AttemptHost {
  readonly hardDeadlineMs: number;
  readonly maxBytes: number;
  readonly running = new Map<string, Attempt>();
  readonly report: Report;
  /** Called when a burst is over and its last job has ended. */
  burstEnded: () => void = () => {};
  /** Returns true while no job may be claimed or started, because other workers may consider this worker dead. */
  isSuspended: () => boolean = () => false;
  /** Passed to start-up and shutdown hooks, and used by every task's ctx. */
  readonly services: TaskServices;
  readonly #queue: Queue;
  readonly #workerId: string;
  readonly #logger: Logger;
  readonly #jobHooks: JobHooks | null;
  readonly #settler: Settler;
  readonly #refusals: Refusals;
  readonly #progress: ProgressSender;
  readonly #burst: Burst | null;
  readonly #fetcher: Fetcher;
  /** Null if no task needs a thread. */
  readonly #threads: Threads | null;
  #Context = TaskContext;
  #closed = false;
  /** True after an uncaught error that ends the worker. */
  #hasCrashed = false;
  readonly #aloneJobs: AloneJobs;
  /** The attempt that runs alone in this process, if there is one. */
  #alone: Attempt | null = null;
  readonly #resume = () => this.#fill();
  #resolveIdle: () => void = () => {};
  /** Keys of jobs that ended since the last check of the event loop and ran long enough to have blocked it. */
  readonly #recentlyEnded = new Set<string>();
  readonly #blockingMs: number;

  constructor(queue: Queue, workerId: string, logger: Logger, problems: ProblemLog) {
    const { config, broker } = queue;
    this.hardDeadlineMs = config.cancellationHardDeadline * 1_000;
    this.maxBytes = config.maxBytes;
    this.report = new Report(logger, queue.counters);
    this.#queue = queue;
    this.#workerId = workerId;
    this.#logger = logger;
    this.services = new TaskServices(queue, this.#view(workerId), logger);
    this.#jobHooks = jobHooks(config, logger);
    this.#settler = new Settler({
      broker,
      report: this.report,
      hooks: this.#jobHooks,
      logger,
      onStored: (attempt, settlement) => this.#stored(attempt, settlement),
      onUncongested: () => this.#fill(),
    });
    this.#refusals = new Refusals({
      config,
      settler: this.#settler,
      report: this.report,
      rules: () => this.#rules(),
    });
    const source = "progress";
    this.#progress = new ProgressSender({
      heartbeat: (changes) => broker.heartbeat(changes),
      failed: (error) =>
        problems.failed({ source, error, message: "could not store the progress of jobs yet" }),
      succeeded: () => problems.succeeded(source),
    });
    this.#aloneJobs = new AloneJobs({
      renew: (claimed) => this.#renewed(claimed),
      mayStart: () => !this.#closed && !this.isSuspended(),
      start: (claimed) => this.#startJob(claimed, true),
      giveBack: (claimed, seconds) => this.#giveBack([claimed], this.#closed ? 0 : seconds),
    });
    this.#blockingMs = config.eventLoopDelay * 1_000 || Number.POSITIVE_INFINITY;
    this.#burst = config.burst ? new Burst({ ...config, over: () => this.#endBurst() }) : null;
    this.#fetcher = new Fetcher({
      broker,
      workerId,
      concurrency: config.concurrency,
      priorities: config.priorities,
      prefetch: config.prefetch && config.maxBurstJobs === null,
      maxClaimMs: certainSeconds(config) * 1_000,
      logger,
      problems,
      mayWaitForThread: Object.values(config.tasks).some(isThreadTask),
      freeSlots: () => (this.#mayStart() ? config.concurrency - this.#taken : Number.NEGATIVE_INFINITY),
      ready: () => this.#fill(),
      giveBack: (jobs) => this.#giveBack(jobs),
      maxToClaim: () => this.#burst?.left ?? Number.POSITIVE_INFINITY,
      claimed: (jobs) => {
        if (jobs > 0) this.#burst?.claimed(jobs);
        else if (this.#taken < config.concurrency && this.#fetcher.buffered === 0) this.#burst?.idle();
      },
    });
    this.#threads = Object.values(config.tasks).some(isThreadTask)
      ? new Threads({
          size: config.threads,
          queueName: queue.name,
          workerId,
          logger,
          start: (claimed) => {
            if (this.#mayStart()) this.#startJob(claimed);
            else this.#giveBack([claimed]);
          },
          giveBack: (claimed) => this.#giveBack([claimed]),
        })
      : null;
  }

  /** Slots in use, including those of jobs that wait for a thread or for other jobs to end. */
  get #taken(): number {
    return this.running.size + this.#aloneJobs.size + (this.#threads?.waiting ?? 0);
  }

  #mayStart(): boolean {
    if (this.#settler.isCongested || this.isSuspended()) return false;
    if (aloneGate.isOpen) return true;
    aloneGate.onceOpen(this.#resume);
    return false;
  }

  #view(id: string): WorkerView {
    const { concurrency, metadata } = this.#queue.config;
    const { running, report } = this;
    return {
      id,
      concurrency,
      metadata,
      get runningKeys() {
        return [...running.keys()];
      },
      get stats() {
        return { ...report.stats };
      },
    };
  }

  /** Adds the members that start-up hooks returned to the ctx of every job that starts from now on. */
  addToContext(state: object): void {
    this.#Context = contextsWith(state);
  }

  /** Keys of the jobs whose task still runs after its hard deadline. */
  get overdueKeys(): string[] {
    return this.#refusals.overdueKeys;
  }

  /** Numbers of the `afterProcess` hooks that run, that wait, and that still run after their timeout. */
  get hooks(): JobHooks["counts"] {
    return this.#jobHooks?.counts ?? { running: 0, waiting: 0, overdue: 0 };
  }

  /** The last error of a claim, and whether claims fail now. */
  get claims(): Pick<Fetcher, "lastError" | "isFailing"> {
    return this.#fetcher;
  }

  /** Keys of the jobs that may have blocked the event loop since the last call. */
  suspects(): string[] {
    const keys = [...new Set([...this.running.keys(), ...this.#recentlyEnded])];
    this.#recentlyEnded.clear();
    return keys;
  }

  now(): number {
    return this.#queue.broker.now();
  }

  /**
   * Compares the claims of this worker in storage with the claims that it holds in memory. Jobs that it does not hold
   * go back into the queue.
   */
  async reconcile(): Promise<void> {
    const { broker, config } = this.#queue;
    const keys = await broker.reconcile({
      workerId: this.#workerId,
      held: () => this.#claims(),
      unrecorded: () => this.#settler.unrecordedClaims(),
      lostLimit: config.lostLimit,
      failedTtl: config.failedTtl,
    });
    this.#settler.requeued(keys);
    if (keys.length > 0) this.wake();
  }

  *#claims(): Generator<Claim> {
    for (const { claim } of this.running.values()) yield claim;
    yield* this.#fetcher.claims();
    yield* this.#threads?.claims ?? [];
    yield* this.#aloneJobs.claims;
    yield* this.#settler.claims();
  }

  /**
   * True if no job runs, waits or is being claimed. Always false during a burst: a burst ends when a claim finds no
   * job, so the worker must continue to claim.
   */
  get isResting(): boolean {
    return !this.#burst && this.#taken === 0 && this.#fetcher.isDry && this.#fetcher.buffered === 0;
  }

  /** Looks for jobs at once, because a job may be claimable now. */
  wake(): void {
    this.#fetcher.wake();
  }

  /** Called at regular intervals, just after jobs become due: looks for jobs, with and without a group. */
  tick(): Promise<void> {
    return this.#fetcher.tick();
  }

  /** Starts no more jobs. Resolves when all jobs that were claimed and not started are being given back. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#burst?.stop();
    this.#aloneJobs.withdraw();
    this.#giveBack(this.#threads?.release() ?? []);
    this.#giveBack(await this.#fetcher.stop());
  }

  /** Interrupts all running jobs, because the worker stops or because an uncaught error ends it. */
  interruptAll(): void {
    for (const attempt of this.running.values()) {
      if (this.#hasCrashed) attempt.interrupt("crash", "an uncaught error ends the worker");
      else attempt.interrupt("shutdown", "the worker is shutting down");
    }
  }

  /** Called when an uncaught error ends the worker. The jobs that run now count as lost. */
  markCrashed(): void {
    this.#hasCrashed = true;
  }

  /** Resolves when no job runs. */
  idle(): Promise<void> {
    if (this.running.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#resolveIdle = resolve;
    });
  }

  /** Ends the threads. A task that still runs in a thread ends with it. */
  async endThreads(): Promise<void> {
    this.#progress.stop();
    await this.#threads?.close();
  }

  /** Resolves when each settlement so far is stored or has failed, and the hooks after it have run. */
  settled(): Promise<void> {
    return this.#settler.settled();
  }

  #fill(): void {
    while (!this.#closed && this.#mayStart() && this.#taken < this.#queue.config.concurrency) {
      const claimed = this.#fetcher.next();
      if (!claimed) break;
      this.#startJob(claimed);
    }
    this.#fetcher.refill();
  }

  /** Returns false if the job was not started. `isAlone`: no other job runs in this process. */
  #startJob(claimed: ClaimedJob, isAlone = false): boolean {
    let forgiven = false;
    const fields = this.#decode(claimed, () => {
      forgiven = true;
    });
    if (!fields) return false;
    const attempt = new Attempt(this, claimed, fields);
    const last = this.running.get(claimed.key);
    last?.interrupt("lost", "taken over by another worker");
    if (last || this.#refusals.isOverdue(claimed.key)) {
      this.#refusals.refuseOverdue(attempt);
      return false;
    }
    const { tasks, unknownTask: rule, lostLimit } = this.#queue.config;
    if (rule === "requeue" && !findTask(tasks, fields.function)) {
      this.#refusals.refuseUnknown(attempt);
      return false;
    }
    const wasHeld = fields.meta.lost !== undefined;
    if (wasHeld && !isAlone && runsAlone(fields.meta, lostLimit)) {
      this.report.waitsAlone(claimed.key);
      this.#aloneJobs.wait(claimed);
      return false;
    }
    if (this.#threads && isThreadTask(findTask(tasks, fields.function)) && !this.#threads.admit(claimed))
      return false;
    if (isAlone) this.#alone = attempt;
    if (forgiven) this.#warnOfInvalidNumbers(claimed.key);
    this.running.set(claimed.key, attempt);
    aloneGate.started();
    this.report.started(attempt);
    const ctx = new this.#Context(this.services, attempt);
    const call = () => invokeTask(this.#queue.config, this.#threads, attempt, ctx);
    const around = this.#jobHooks;
    const run = around ? () => around.run(attempt, ctx, call) : call;
    attempt.run(wasHeld ? () => this.#runMarked(attempt, run) : run);
    return true;
  }

  /**
   * Stores that the job has started, then runs it. A previous worker died while it held this job. If this worker dies
   * too, storage must show that it had started the job.
   */
  async #runMarked(attempt: Attempt, run: () => unknown): Promise<unknown> {
    await attempt.update({}).catch((error: unknown) => {
      this.#logger.debug({ err: error, job: attempt.fields.key }, "could not write down the start of a job");
    });
    if (attempt.interruptReason) throw attempt.interruptReason;
    return run();
  }

  /**
   * Renews a claim. Returns undefined if this worker no longer owns the job, if the request fails, or if the response
   * takes longer than `certainSeconds`.
   */
  async #renewed(claimed: ClaimedJob): Promise<ClaimedJob | undefined> {
    const { broker, config } = this.#queue;
    const sent = performance.now();
    try {
      const [renewed] = await broker.renew([claimed]);
      return performance.now() - sent <= certainSeconds(config) * 1_000 ? renewed : undefined;
    } catch (error) {
      this.#logger.debug(
        { err: error, job: claimed.key },
        "could not renew the claim of a job that runs alone",
      );
      return undefined;
    }
  }

  #rules(): SettlementRules {
    const { failedTtl, maxBytes } = this.#queue.config;
    return { nowMs: this.now(), failedTtl, maxBytes };
  }

  /**
   * Decodes the document of a job. If the document is not a SAQ job, marks the job as failed and returns null. Calls
   * `forgave` if the document contains NaN or Infinity, which are not valid JSON.
   */
  #decode(claimed: ClaimedJob, forgave?: () => void): JobFields | null {
    try {
      return claimedFields(claimed, {
        queueName: this.#queue.name,
        workerId: this.#workerId,
        forgave,
      });
    } catch (error) {
      this.#logger.debug({ err: error, job: claimed.key }, "the stored document is not a SAQ job");
      this.#settler.setAside(claimed);
      return null;
    }
  }

  #warnOfInvalidNumbers(key: string): void {
    this.#logger.warn(
      { job: key },
      "the stored document holds NaN or Infinity, which are no JSON: its task reads them as null; stored as they are",
    );
  }

  /** Called when an attempt has ended. Its slot is free at once. Its settlement is sent with the next statement. */
  ended(attempt: Attempt, end: AttemptResult): void {
    const { fields } = attempt;
    this.running.delete(fields.key);
    this.#threads?.left(fields.key);
    const ms = performance.now() - attempt.startedAt;
    this.#fetcher.measure(ms, fields.timeout);
    if (ms > this.#blockingMs) this.#recentlyEnded.add(fields.key);
    if (end.kind === "interrupted" && end.overdue) this.#refusals.remember(attempt);
    const settlement = settlementOf(attempt, end, this.#rules());
    if (settlement) this.#settler.settle(attempt, settlement, end);
    else if (attempt.interruption === "crash") this.#settler.recordLoss(attempt, this.#queue.config);
    else this.#settler.drop(attempt);
    const wasAlone = attempt === this.#alone;
    if (wasAlone) this.#alone = null;
    aloneGate.ended(wasAlone);
    if (this.running.size === 0) this.#resolveIdle();
    this.#fill();
    if (this.#burst) this.#checkBurst(this.#burst);
  }

  #checkBurst(burst: Burst): void {
    if (burst.isOver) this.#endBurst();
    else if (this.#fetcher.isDry && this.#fetcher.buffered === 0) burst.idle();
  }

  /** Calls `burstEnded` if every job that was claimed so far has ended. */
  #endBurst(): void {
    if (this.#taken === 0 && this.#fetcher.buffered === 0) this.burstEnded();
  }

  #stored({ fields }: Attempt, { status, scheduled }: Settlement): void {
    // Jobs that run alone share one group in storage, so another one may be claimable now.
    if (fields.groupKey !== null || fields.meta.lost !== undefined) this.#fetcher.groupEnded();
    if (status === "queued" && scheduled <= this.now() / 1_000) this.#fetcher.wake();
  }

  /**
   * Returns jobs to the queue at their previous position. Their attempt is not counted. With `seconds`, they become due
   * only after that time, s.
   */
  #giveBack(jobs: readonly ClaimedJob[], seconds = 0): void {
    for (const claimed of jobs) {
      const fields = this.#decode(claimed);
      if (!fields) continue;
      const attempt = new Attempt(this, claimed, fields);
      const settlement = release(attempt);
      if (seconds > 0) settlement.scheduled = Math.ceil(this.now() / 1_000) + seconds;
      this.#settler.settle(attempt, settlement);
    }
  }

  async heartbeat(attempt: Attempt, patch: string, removed: readonly string[]): Promise<boolean> {
    const change = { ...attempt.claim, patch, removed };
    const [owned] = await this.#queue.broker.heartbeat([change], () => attempt.isOver);
    return owned === true;
  }

  sendProgress(attempt: Attempt, change: Pick<Partial<JobFields>, "progress">): Promise<void> {
    return this.#progress.send(attempt, change);
  }

  async findInterruption(claim: ClaimedJob): Promise<Interrupted["why"] | null> {
    const [ended] = await this.#queue.broker.findInterrupted([claim]);
    return ended?.why ?? null;
  }

  finish(
    attempt: Attempt,
    returned: unknown,
    client: TransactionClient,
  ): Promise<TransactionalFinish | null> {
    return finishInTransaction(this.#queue, attempt, returned, client, this.#rules());
  }
}
