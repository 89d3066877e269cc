/**
 * Runs the jobs of one worker, from the claim to the settlement. It fills the worker's slots, runs attempts, and sends
 * each settlement with the next statement. A slot becomes free when its attempt ends. It does not wait until the
 * settlement is stored.
 */

import type { Broker, Settlement } from "../broker.js";
import type { QueueConfig } from "../config/index.js";
import type { Claim, ClaimedJob } from "../core/claim.js";
import type { PausedJobs } from "../core/pause.js";
import type { Logger } from "../logger.js";
import type { ProblemLog } from "../problem-log.js";
import type { Queue } from "../queue/queue.js";
import { isThreadTask } from "../tasks/task.js";
import { aloneGate } from "./alone-gate.js";
import { AloneJobs } from "./alone-jobs.js";
import type { Attempt } from "./attempt/attempt.js";
import { type JobHooks, jobHooks } from "./attempt/hooks.js";
import { WorkerAttemptHost } from "./attempt/worker-attempt-host.js";
import { Burst } from "./burst.js";
import { ClaimedJobs } from "./claimed-jobs.js";
import { Fetcher, type FetchHost } from "./fetcher.js";
import { JobStarter } from "./job-starter.js";
import { Pauses } from "./pauses.js";
import { RunningJobs } from "./running-jobs.js";
import { TaskServices, workerView } from "./services.js";
import { Refusals } from "./settlement/refusals.js";
import { Report } from "./settlement/report.js";
import { type AttemptResult, settlementOf } from "./settlement/settlement.js";
import { Settler } from "./settlement/settler.js";
import { outcomeOf } from "./settlement/trace-outcome.js";
import { Threads } from "./threads/threads.js";
import { maxResponseSeconds } from "./time-limits.js";

export class Runner implements FetchHost {
  /** The running attempts by the keys of their jobs. */
  readonly running: ReadonlyMap<string, Attempt>;
  readonly report: Report;
  /** Called when a burst is over and its last job has ended. */
  burstEnded: () => void = () => {};
  /** Returns true while no job may be claimed or started, because other workers may consider this worker dead. */
  isSuspended: () => boolean = () => false;
  /** Called when a pause has ended, so that jobs may be claimable. */
  pauseEnded: () => void = () => this.wake();
  /** Passed to startup and shutdown hooks, and used by every task's ctx. */
  readonly services: TaskServices;
  /** What is paused. */
  readonly pauses: Pauses;
  readonly #logger: Logger;
  readonly #broker: Broker;
  readonly #config: QueueConfig;
  readonly #jobHooks: JobHooks | null;
  readonly #attemptHost: WorkerAttemptHost;
  readonly #runningJobs: RunningJobs;
  readonly #claimedJobs: ClaimedJobs;
  readonly #starter: JobStarter;
  readonly #settler: Settler;
  readonly #refusals: Refusals;
  readonly #aloneJobs: AloneJobs;
  readonly #burst: Burst | null;
  readonly #fetcher: Fetcher;
  /** Null if no task needs a thread. */
  readonly #threads: Threads | null;
  #isClosed = false;
  /** One function for all calls of `onceOpen`, so that the gate keeps it only once. */
  readonly #onGateOpen = () => this.#fill();

  constructor(queue: Queue, workerId: string, logger: Logger, problems: ProblemLog) {
    const { config, broker } = queue;
    const hasThreadTasks = Object.values(config.tasks).some(isThreadTask);
    this.#config = config;
    this.#logger = logger;
    this.#broker = broker;
    this.pauses = new Pauses({
      queueName: queue.name,
      workerId,
      now: () => broker.now(),
      logger,
      onPaused: () => void this.#withdrawPaused(),
      onResumed: () => this.#resume(),
    });
    this.#runningJobs = new RunningJobs(config.eventLoopDelay * 1_000 || Number.POSITIVE_INFINITY);
    this.running = this.#runningJobs.attempts;
    this.report = new Report(logger, queue.counters);
    this.services = new TaskServices(queue, workerView(queue, workerId, this.running, this.report), logger);
    this.#jobHooks = jobHooks(config, logger);
    this.#attemptHost = new WorkerAttemptHost(queue, problems, (attempt, end) => this.#ended(attempt, end));
    this.#settler = new Settler({
      broker,
      queueName: queue.name,
      workerId,
      report: this.report,
      hooks: this.#jobHooks,
      logger,
      onStored: (attempt, settlement) => this.#stored(attempt, settlement),
      onUncongested: () => this.#fill(),
    });
    this.#claimedJobs = new ClaimedJobs({
      queue,
      workerId,
      logger,
      settler: this.#settler,
      host: this.#attemptHost,
    });
    this.#refusals = new Refusals({
      config,
      settler: this.#settler,
      report: this.report,
      rules: () => this.#attemptHost.rules(),
    });
    this.#aloneJobs = new AloneJobs({
      renew: (claimed) => this.#claimedJobs.renew(claimed),
      mayStart: () => !this.#isClosed && !this.isSuspended(),
      start: (claimed) => this.#starter.start(claimed, true),
      giveBack: (claimed, seconds) => this.#claimedJobs.giveBack([claimed], this.#isClosed ? 0 : seconds),
    });
    this.#threads = hasThreadTasks
      ? new Threads({
          size: config.threads,
          queueName: queue.name,
          workerId,
          logger,
          start: (claimed) => {
            if (this.#mayStart()) this.#starter.start(claimed);
            else this.giveBack([claimed]);
          },
          giveBack: (claimed) => this.giveBack([claimed]),
        })
      : null;
    this.#starter = new JobStarter({
      queue,
      logger,
      report: this.report,
      host: this.#attemptHost,
      services: this.services,
      hooks: this.#jobHooks,
      runningJobs: this.#runningJobs,
      claimedJobs: this.#claimedJobs,
      refusals: this.#refusals,
      pauses: this.pauses,
      aloneJobs: this.#aloneJobs,
      threads: this.#threads,
    });
    this.#burst = config.burst ? new Burst({ ...config, onEnd: () => this.#endBurst() }) : null;
    this.#fetcher = new Fetcher(this, {
      broker,
      queueName: queue.name,
      workerId,
      concurrency: config.concurrency,
      priorities: config.priorities,
      prefetch: config.prefetch && config.maxBurstJobs === null,
      maxClaimMs: maxResponseSeconds(config) * 1_000,
      logger,
      problems,
      telemetry: queue.telemetry,
      mayWaitForThread: hasThreadTasks,
    });
  }

  // What the fetcher needs (FetchHost).

  freeSlots(): number {
    return this.#mayStart() ? this.#config.concurrency - this.#usedSlots : Number.NEGATIVE_INFINITY;
  }

  get isPaused(): boolean {
    return this.pauses.isQueuePaused;
  }

  get excluded(): PausedJobs | null {
    return this.pauses.excluded;
  }

  maxToClaim(): number {
    return this.#burst?.remaining ?? Number.POSITIVE_INFINITY;
  }

  jobsBuffered(): void {
    this.#fill();
  }

  jobsClaimed(count: number): void {
    if (count > 0) this.#burst?.claimed(count);
    else if (this.#usedSlots < this.#config.concurrency && this.#fetcher.buffered === 0) this.#burst?.idle();
  }

  giveBack(jobs: readonly ClaimedJob[]): void {
    this.#claimedJobs.giveBack(jobs);
  }

  /** Slots in use, including those of jobs that wait for a thread or for other jobs to end. */
  get #usedSlots(): number {
    return this.running.size + this.#aloneJobs.size + (this.#threads?.waiting ?? 0);
  }

  #mayStart(): boolean {
    if (this.pauses.isQueuePaused || this.#settler.isCongested || this.isSuspended()) return false;
    if (aloneGate.isOpen) return true;
    aloneGate.onceOpen(this.#onGateOpen);
    return false;
  }

  /** Adds the members that startup hooks returned to the ctx of every job that starts from now on. */
  addToContext(state: object): void {
    this.#starter.addToContext(state);
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

  /** Returns the keys of the jobs that may have blocked the event loop since the last call. */
  takeRecentKeys(): string[] {
    return this.#runningJobs.takeRecentKeys();
  }

  /**
   * Compares the claims of this worker in storage with the claims that it holds in memory. Jobs that it does not hold
   * go back into the queue.
   */
  async reconcile(): Promise<void> {
    const keys = await this.#claimedJobs.reconcile(() => this.#heldClaims());
    if (keys.length > 0) this.wake();
  }

  *#heldClaims(): Generator<Claim> {
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
    const isIdle = this.#fetcher.isIdle || this.pauses.isQueuePaused;
    return !this.#burst && this.#usedSlots === 0 && isIdle && this.#fetcher.buffered === 0;
  }

  /** Looks for jobs at once, because a job may be claimable now. */
  wake(): void {
    this.#fetcher.wake();
  }

  /**
   * Called at regular intervals, just after jobs become due: looks for jobs, with and without a group. While the queue
   * is paused, looks only whether the pause has ended, unless a notification will say so.
   */
  async tick(): Promise<void> {
    await this.#fetcher.tick();
    if (!this.pauses.isQueuePaused) return;
    if (this.#burst && !this.#burst.isOver) {
      const { workerId } = this.services;
      this.#logger.info({ workerId }, "The queue is paused, so the burst ends: it has nothing to do");
      this.#burst.end();
    }
    if (!this.#broker.isListening) await this.#broker.pauses.refresh();
  }

  #resume(): void {
    this.#refusals.forgetPaused();
    this.pauseEnded();
  }

  /**
   * Called when a pause has begun: gives back the claimed jobs that it covers, in their order. The jobs of a claim in
   * flight go back together with them, because on Redis each job that is given back goes in front of the others.
   */
  async #withdrawPaused(): Promise<void> {
    this.#refusals.forgetPaused();
    await this.#fetcher.claimEnded();
    if (this.#isClosed) return;
    const isPaused = (claimed: ClaimedJob) =>
      this.pauses.isQueuePaused || this.#claimedJobs.matches(claimed, (fields) => this.pauses.covers(fields));
    this.giveBack([...(this.#threads?.takeWaiting(isPaused) ?? []), ...this.#fetcher.take(isPaused)]);
    await this.#aloneJobs.withdraw(isPaused);
    // The slots of the withdrawn jobs are free.
    this.#fill();
    if (this.#burst?.isOver) this.#endBurst();
  }

  /** Starts no more jobs. Resolves when all jobs that were claimed and not started are being given back. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.pauses.stop();
    this.#burst?.stop();
    const withdrawn = this.#aloneJobs.withdraw();
    this.giveBack(this.#threads?.takeWaiting() ?? []);
    this.giveBack(await this.#fetcher.stop());
    await withdrawn;
  }

  /** Interrupts all running jobs, because the worker stops or because an uncaught error ends it. */
  interruptAll(): void {
    this.#runningJobs.interruptAll();
  }

  /** Called when an uncaught error ends the worker. The jobs that run now count as lost. */
  markCrashed(): void {
    this.#runningJobs.markCrashed();
  }

  /** Resolves when no job runs. */
  idle(): Promise<void> {
    return this.#runningJobs.idle();
  }

  /** Ends the threads. A task that still runs in a thread ends with it. */
  async endThreads(): Promise<void> {
    this.#attemptHost.stopProgress();
    await this.#threads?.close();
  }

  /** Resolves when each settlement so far is stored or has failed, and the hooks after it have run. */
  settled(): Promise<void> {
    return this.#settler.settled();
  }

  #fill(): void {
    while (!this.#isClosed && this.#mayStart() && this.#usedSlots < this.#config.concurrency) {
      const claimed = this.#fetcher.next();
      if (!claimed) break;
      this.#starter.start(claimed);
    }
    this.#fetcher.refill();
  }

  /** Called when an attempt has ended. Its slot is free at once. Its settlement is sent with the next statement. */
  #ended(attempt: Attempt, end: AttemptResult): void {
    const { key, timeout } = attempt.fields;
    this.#runningJobs.freeSlot(attempt);
    this.#threads?.attemptEnded(key);
    const durationMs = performance.now() - attempt.startedAt;
    this.#fetcher.measure(durationMs, timeout);
    if (end.kind === "interrupted" && end.overdue) this.#refusals.addOverdue(attempt);
    const settlement = settlementOf(attempt, end, this.#attemptHost.rules());
    attempt.trace?.end(outcomeOf(end, settlement));
    if (settlement) this.#settler.settle(attempt, settlement, end);
    else if (attempt.interruption === "crash") this.#settler.recordLoss(attempt, this.#config);
    else this.#settler.drop(attempt);
    this.#runningJobs.end(attempt, durationMs);
    this.#fill();
    if (this.#burst) this.#checkBurst(this.#burst);
  }

  #checkBurst(burst: Burst): void {
    if (burst.isOver) this.#endBurst();
    else if (this.#fetcher.isIdle && this.#fetcher.buffered === 0) burst.idle();
  }

  /** Calls `burstEnded` if every job that was claimed so far has ended. */
  #endBurst(): void {
    if (this.#usedSlots === 0 && this.#fetcher.buffered === 0) this.burstEnded();
  }

  #stored({ fields }: Attempt, { status, scheduled }: Settlement): void {
    // Jobs that run alone share one group in storage, so another one may be claimable now.
    if (fields.groupKey !== null || fields.meta.lost !== undefined) this.#fetcher.groupEnded();
    if (status === "queued" && scheduled <= this.#attemptHost.now() / 1_000) this.#fetcher.wake();
  }
}
