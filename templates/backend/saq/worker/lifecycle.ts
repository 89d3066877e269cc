/**
 * One run of a worker, from start to stop.
 *
 * The start connects, runs the startup hooks, starts the heartbeat and LISTEN, and then claims for the first time. In
 * this order other workers can check that the owner of each claimed job is alive, and no notification is missed. The
 * stop goes in the reverse order. It stops claiming and gives back the jobs that were not started. Running jobs get the
 * grace period, then their signal fires, and the stop waits for the hard deadline. Jobs that did not end within the
 * grace period go back into the queue, and their attempt is not counted. Then the shutdown hooks run. The heartbeat
 * ends last.
 */
import { describe, type Logger } from "../logger.js";
import { ProblemLog } from "../problem-log.js";
import type { Queue } from "../queue/queue.js";
import { withTimeout } from "../timers.js";
import { runShutdownHooks, runStartupHooks } from "./attempt/hooks.js";
import { connectWithRetry } from "./connect-with-retry.js";
import { EventLoopMonitor } from "./maintenance/event-loop-monitor.js";
import { IdlePolling } from "./maintenance/idle-polling.js";
import { monitorTasks, OwnershipMonitor } from "./maintenance/job-monitor.js";
import { PeriodicTasks } from "./maintenance/periodic-tasks.js";
import { Runner } from "./runner.js";
import { schedule } from "./scheduling/scheduler.js";
import { maxResponseSeconds, sweepGraceSeconds } from "./time-limits.js";

/** How long a stop waits for jobs to be settled while the database is unreachable. */
const settleTimeoutMs = 10_000;
/** How long a stop waits until jobs are given back that the worker does not hold. */
const reconcileTimeoutMs = 3_000;
/** How long a stop waits for a start in progress, and then for the release of what the start acquired. */
const releaseTimeoutMs = 2_000;
const periodicTasksTimeoutMs = 500;

/** Waits until all promises have settled, because a stop must undo what they started. Then throws the first error. */
async function allSettledOrThrow(promises: readonly Promise<unknown>[]): Promise<void> {
  await Promise.allSettled(promises);
  await Promise.all(promises);
}

export class WorkerRun {
  readonly workerId: string;
  readonly runner: Runner;
  /** Ends the grace period of a stop in progress. */
  readonly endGracePeriod: () => void;
  /** Resolves when the worker has stopped, for any reason. */
  readonly finished: Promise<void>;
  readonly #queue: Queue;
  readonly #logger: Logger;
  readonly #ownershipMonitor: OwnershipMonitor;
  readonly #periodicTasks: PeriodicTasks;
  readonly #idlePolling: IdlePolling;
  readonly #eventLoopMonitor: EventLoopMonitor | null;
  readonly #heartbeat: PeriodicTasks;
  readonly #gracePeriodEnded: Promise<void>;
  /** Release what the start acquired, in the order of the start. */
  readonly #releases: (() => Promise<void>)[] = [];
  /** The members that startup hooks returned; null until the first hook is called. */
  #hookState: Record<string, unknown> | null = null;
  /** performance.now() */
  #startedAt: number | null = null;
  /** When the last successful heartbeat was sent, by performance.now(). */
  #lastHeartbeatAt = Number.NEGATIVE_INFINITY;
  /** True when jobs may be claimed. */
  #isReady = false;
  /** Settles when the startup hooks have ended. */
  #startedUp: Promise<void> = Promise.resolve();
  #starting: Promise<void> | null = null;
  /** Cancels a start that waits for the database. */
  readonly #startAbort = new AbortController();
  #stopping: Promise<void> | null = null;
  #hasStopped = false;
  #resolveFinished: () => void = () => {};

  constructor(queue: Queue, logger: Logger) {
    const { config, broker } = queue;
    let endGracePeriod = () => {};
    this.#gracePeriodEnded = new Promise((resolve) => {
      endGracePeriod = resolve;
    });
    this.endGracePeriod = endGracePeriod;
    this.finished = new Promise((resolve) => {
      this.#resolveFinished = resolve;
    });
    this.workerId = broker.newWorkerId();
    this.#queue = queue;
    this.#logger = logger;
    const problems = new ProblemLog(logger, { isLoggedElsewhere: (error) => broker.isOutage(error) });
    this.runner = new Runner(queue, this.workerId, logger, problems);
    this.#idlePolling = new IdlePolling(queue, this.runner);
    this.#ownershipMonitor = new OwnershipMonitor(broker, this.runner.running, logger);
    const { timers, pollInterval } = config;
    this.#heartbeat = new PeriodicTasks(
      [{ name: "heartbeat", every: timers.workerInfo, run: () => this.#sendHeartbeat() }],
      problems,
    );
    const lookForDueJobs = {
      name: "schedule",
      every: pollInterval || timers.schedule,
      alignedTo: () => broker.now(),
      notBefore: () => this.#idlePolling.idleUntilMs,
      run: () => this.#tick(),
    };
    const tasks = [
      lookForDueJobs,
      ...schedule(queue, logger),
      ...monitorTasks(queue, this.runner, this.#ownershipMonitor, {
        renewLease: () => this.#sendHeartbeat(),
        logger,
      }),
    ];
    this.#eventLoopMonitor =
      config.eventLoopDelay > 0
        ? new EventLoopMonitor(config.eventLoopDelay * 1_000, this.runner, logger)
        : null;
    this.#periodicTasks = new PeriodicTasks(tasks, problems);
    this.runner.burstEnded = () => void this.stop(0);
    this.runner.isSuspended = () => this.#isLeaseExpired();
    this.runner.pauseEnded = () => this.#wake();
  }

  get hasStopped(): boolean {
    return this.#hasStopped;
  }

  get hasStarted(): boolean {
    return this.#startedAt !== null;
  }

  /** Resolves when the worker takes jobs, or when it is stopped before that. */
  async start(): Promise<void> {
    this.#startedAt = performance.now();
    const { telemetry } = this.#queue;
    telemetry.refresh();
    const { current } = telemetry;
    // What the start begins runs as long as the worker. It is no part of the span in which a program starts a worker.
    this.#starting = current ? current.detached(() => this.#start()) : this.#start();
    try {
      await this.#starting;
    } catch (error) {
      await this.stop(0);
      throw error;
    }
  }

  async #start(): Promise<void> {
    const { broker, config } = this.#queue;
    const acquire = async (acquired: Promise<() => Promise<void>>) => this.#releases.push(await acquired);
    let hasLiveness = false;
    const holdLiveness = async () => {
      if (hasLiveness) return;
      await acquire(broker.holdLiveness(this.workerId));
      hasLiveness = true;
    };
    const connect = () => allSettledOrThrow([this.#queue.connect(), holdLiveness()]);
    const steps: (() => Promise<unknown>)[] = [
      // Opens two connections at the same time. Their order does not matter, because other workers check the lock only
      // after the first heartbeat.
      () => connectWithRetry(this.#queue, { logger: this.#logger, signal: this.#startAbort.signal, connect }),
      () => this.#runStartupHooks(),
      () =>
        allSettledOrThrow([
          this.#sendHeartbeat(),
          acquire(broker.subscribe(() => this.#wake())),
          acquire(broker.onJobEvents((event) => this.#ownershipMonitor.onJobEvent(event))),
          acquire(broker.pauses.watch((pauses) => this.runner.pauses.update(pauses))),
        ]),
    ];
    for (const step of steps) if (!this.#stopping) await step();
    if (this.#stopping) return;
    this.#observe();
    this.#logger.info(
      { workerId: this.workerId, concurrency: config.concurrency },
      `Worker starting: ${this.#queue.name}`,
    );
    this.#logger.debug({ tasks: Object.keys(config.tasks) }, "Registered functions:");
    this.#isReady = true;
    this.#heartbeat.start();
    this.#periodicTasks.start();
    this.#eventLoopMonitor?.begin();
    // The worker has started. If this first check fails, the next tick tries again.
    await this.runner.tick().catch((error: unknown) => {
      this.#logger.debug({ err: error }, "could not look for jobs at the start; the next tick looks again");
    });
  }

  /** Shows the queue and the slots of this worker in the gauges of OpenTelemetry. */
  #observe(): void {
    const { broker, config, telemetry } = this.#queue;
    const stop = telemetry.current?.observe({
      counts: () => broker.counts(),
      oldestDue: async () => (await broker.nextWork(config.priorities)).due,
      now: () => broker.now(),
      slots: () => ({ used: this.runner.running.size, total: config.concurrency }),
    });
    if (stop) this.#releases.push(async () => stop());
  }

  /**
   * Handles a notification. Does nothing before the start is complete, because the subscription starts at the same time
   * as the first heartbeat. No job is missed, because the start itself ends with a claim.
   */
  #wake(): void {
    if (!this.#isReady) return;
    this.#idlePolling.wake();
    this.#resumeMonitoring();
  }

  async #tick(): Promise<void> {
    await this.#idlePolling.tick();
    if (!this.runner.isResting) this.#resumeMonitoring();
  }

  /** Resumes the periodic tasks and the event loop monitor, which pause while no job runs. */
  #resumeMonitoring(): void {
    this.#eventLoopMonitor?.begin();
    this.#periodicTasks.resume();
  }

  get #hookOptions() {
    return { timeoutMs: this.#queue.config.hookTimeout * 1_000, logger: this.#logger };
  }

  async #runStartupHooks(): Promise<void> {
    const state = {};
    this.#hookState = state;
    const { services } = this.runner;
    const hooks = runStartupHooks(this.#queue.config.startup, services, state, this.#hookOptions);
    this.#startedUp = hooks;
    await hooks;
    this.runner.addToContext(state);
  }

  /**
   * Stops the worker. An idle worker stops in well under a second. Later calls wait for the first call. A run that was
   * never started is over at once, and must not be started any more.
   */
  async stop(graceMs: number): Promise<void> {
    if (!this.hasStarted) return this.#end();
    this.#startAbort.abort();
    this.#stopping ??= this.#stop(graceMs).finally(() => this.#end());
    await this.#stopping;
  }

  #end(): void {
    this.#hasStopped = true;
    this.#resolveFinished();
  }

  async #stop(graceMs: number): Promise<void> {
    this.#logger.info({ workerId: this.workerId, running: this.runner.running.size }, "Worker shutting down");
    const givenBack = this.runner.close();
    const tasksEnded = this.#periodicTasks.stop();
    this.#eventLoopMonitor?.stop();
    await withTimeout(graceMs, Promise.race([this.runner.idle(), this.#gracePeriodEnded]));
    if (this.runner.running.size > 0) {
      this.#logger.warn(
        { jobs: [...this.runner.running.keys()] },
        "Some tasks did not finish within the shutdown grace period, requesting cancellation",
      );
      this.runner.interruptAll();
      // Each attempt ends at its own hard deadline. The extra second gives the timers time to fire.
      await withTimeout(this.#queue.config.cancellationHardDeadline * 1_000 + 1_000, this.runner.idle());
      if (this.runner.overdueKeys.length > 0) {
        this.#logger.warn(
          { jobs: this.runner.overdueKeys },
          "Some tasks did not finish cancellation in time, they may be stuck or blocked",
        );
      }
    }
    // The database may be unreachable, so this wait has a timeout.
    await withTimeout(
      settleTimeoutMs,
      givenBack.then(() => this.runner.settled()).then(() => this.#giveBackUnheld()),
    );
    await withTimeout(periodicTasksTimeoutMs, Promise.all([tasksEnded, this.runner.endThreads()]));
    // A startup hook that still runs may open a resource. Wait for it first, so that the shutdown hooks can close it.
    await withTimeout(this.#hookOptions.timeoutMs || Number.POSITIVE_INFINITY, this.#startedUp);
    await withTimeout(releaseTimeoutMs, this.#starting ?? Promise.resolve());
    await this.#runShutdownHooks();
    await withTimeout(releaseTimeoutMs, this.#releaseAll());
    this.#logger.info({ workerId: this.workerId, ...this.runner.report.stats }, "Worker stopped");
  }

  /**
   * Gives back jobs that run under a claim of this worker although it does not hold them: the response to the claim was
   * lost, or the end of the job could not be recorded. While a worker runs, a periodic task does this. After its end
   * the jobs would wait until another worker takes them over.
   */
  async #giveBackUnheld(): Promise<void> {
    const reconciled = this.runner.reconcile().catch((error: unknown) => {
      this.#logger.debug(describe(error), "could not look for jobs that this worker does not hold");
    });
    await withTimeout(reconcileTimeoutMs, reconciled);
  }

  async #runShutdownHooks(): Promise<void> {
    const { services } = this.runner;
    if (!this.#hookState) return;
    const ctx = Object.assign(Object.create(services) as typeof services, this.#hookState);
    await runShutdownHooks(this.#queue.config.shutdown, ctx, this.#hookOptions);
  }

  /** Undoes the steps of `start` in reverse order. If a start is in progress, it ends before its next step. */
  async #releaseAll(): Promise<void> {
    await this.#starting?.catch(() => {});
    await this.#heartbeat.stop();
    await this.#queue.broker.removeWorker(this.workerId).catch(() => {});
    for (const release of [...this.#releases].reverse()) await release();
  }

  /**
   * True if the last heartbeat is so old that other workers may soon consider this worker dead. Always false if the
   * worker holds a lock, because the lock shows others that it is alive.
   */
  #isLeaseExpired(): boolean {
    const { broker, config } = this.#queue;
    const maxAge = broker.maxHeartbeatAge({
      ttlSeconds: this.#heartbeatTtlSeconds,
      marginSeconds: maxResponseSeconds(config),
    });
    return maxAge !== null && performance.now() - this.#lastHeartbeatAt > maxAge * 1_000;
  }

  /** How long a heartbeat is valid, s. */
  get #heartbeatTtlSeconds(): number {
    return Math.ceil(this.#queue.config.timers.workerInfo * 3);
  }

  async #sendHeartbeat(): Promise<void> {
    const { broker, config } = this.#queue;
    const sentAt = performance.now();
    const uptime = Math.round(performance.now() - (this.#startedAt ?? performance.now()));
    const stats = { ...this.runner.report.stats, uptime };
    const row = {
      workerId: this.workerId,
      stats,
      metadata: config.metadata,
      queueKey: this.#queue.name,
      graceSeconds: sweepGraceSeconds(this.#queue),
    };
    await broker.saveWorker(row, this.#heartbeatTtlSeconds);
    const wasExpired = this.#isLeaseExpired();
    this.#lastHeartbeatAt = sentAt;
    if (!wasExpired || !this.#isReady) return;
    // Other workers may have taken over the jobs that run here.
    this.#ownershipMonitor.onJobEvent(null);
    this.#wake();
  }
}
