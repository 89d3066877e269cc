/**
 * A worker: claims jobs of one queue and runs `concurrency` of them at a time.
 *
 * Starting goes from the outside in: sign of life, then LISTEN, then the first claim, so that nothing is claimed that
 * nobody vouches for and no notification is missed (D-7). Stopping goes the other way round: no more claims, what was
 * not started is given back, running jobs get the grace period, then their signal, then the hard deadline; what still
 * runs goes back into the queue uncharged (W-17). The sign of life is the last thing to end.
 */
import type { ClaimedJob, Settlement, WorkerStats } from "../broker.js";
import { findTask } from "../config.js";
import { ConfigError } from "../errors.js";
import type { JobFields } from "../job.js";
import { type Logger, neverThrowing, silentLogger } from "../logger.js";
import type { Queue } from "../queue.js";
import { type AnyTask, type EnqueueOptions, runnerOf, validatePayload } from "../task.js";
import { setAside } from "../transitions.js";
import { decodeJob } from "../wire.js";
import { within } from "../within.js";
import { Attempt, type AttemptEnd, type AttemptHost } from "./attempt.js";
import { Feeder } from "./feeder.js";
import { release, settlementOf } from "./outcome.js";
import { Report } from "./report.js";
import { Upkeep } from "./upkeep.js";
import { watch } from "./watch.js";

export interface WorkerOptions {
  logger?: Logger;
  /** Overrides the queue's own, s. */
  shutdownGracePeriod?: number;
}

/** Results that wait to be recorded before the worker stops starting jobs. */
const mostUnsettled = 2_000;
/** How long a stop waits for results to be recorded while the database is away. */
const settlePatienceMs = 10_000;
/** How long a stop waits for a start or a sweep under way, and for its own farewell. */
const leavePatienceMs = 2_000;
const sweepPatienceMs = 500;

export class Worker implements AttemptHost {
  readonly workerId: string;
  readonly queueName: string;
  readonly logger: Logger;
  readonly hardDeadlineMs: number;
  /** Ends the grace period of a stop under way. */
  readonly hurry: () => void;
  readonly #queue: Queue;
  readonly #graceMs: number;
  readonly #names: Map<AnyTask, string>;
  readonly #running = new Map<string, Attempt>();
  /** Tasks that outlived their deadline, by key: their job must not run a second time beside them (D-46). */
  readonly #overdue = new Map<string, Promise<void>>();
  readonly #settling = new Set<Promise<void>>();
  readonly #feeder: Feeder;
  readonly #upkeep: Upkeep;
  readonly #heartbeat: Upkeep;
  readonly #report: Report;
  readonly #hurried: Promise<void>;
  readonly #letGo: (() => Promise<void>)[] = [];
  #startedAt = 0;
  #starting: Promise<void> | null = null;
  #stopping: Promise<void> | null = null;
  #becameIdle: () => void = () => {};

  constructor(queue: Queue, { logger: given = silentLogger, shutdownGracePeriod }: WorkerOptions = {}) {
    const { config, broker } = queue;
    const logger = neverThrowing(given);
    let hurry = () => {};
    this.#hurried = new Promise((resolve) => {
      hurry = resolve;
    });
    this.hurry = hurry;
    this.#report = new Report(logger);
    this.workerId = broker.newWorkerId();
    this.queueName = queue.name;
    this.logger = logger;
    this.hardDeadlineMs = config.cancellationHardDeadline * 1_000;
    this.#queue = queue;
    this.#graceMs = (shutdownGracePeriod ?? config.shutdownGracePeriod) * 1_000;
    this.#names = new Map(Object.entries(config.tasks).map(([name, task]) => [task, name]));
    this.#feeder = new Feeder({
      broker,
      workerId: this.workerId,
      concurrency: config.concurrency,
      priorities: config.priorities,
      prefetch: config.prefetch,
      logger,
      freeSlots: () => (this.#settling.size > mostUnsettled ? 0 : config.concurrency - this.#running.size),
      ready: () => this.#fill(),
      giveBack: (jobs) => this.#giveBack(jobs),
    });
    const { timers, pollInterval } = config;
    const now = () => broker.now();
    this.#heartbeat = new Upkeep(
      [{ name: "beat", every: timers.workerInfo, run: () => this.#beat() }],
      logger,
    );
    const due = {
      name: "schedule",
      every: pollInterval || timers.schedule,
      alignedTo: now,
      run: () => this.#feeder.tick(),
    };
    this.#upkeep = new Upkeep([due, ...watch(queue, this.#running, logger)], logger);
  }

  /** Keys of the jobs that run now. */
  get runningKeys(): string[] {
    return [...this.#running.keys()];
  }

  /** Keys of the jobs whose task outlived its hard deadline and still goes on. */
  get overdueKeys(): string[] {
    return [...this.#overdue.keys()];
  }

  get stats(): Omit<WorkerStats, "uptime"> {
    return this.#report.stats;
  }

  now(): number {
    return this.#queue.broker.now();
  }

  /** Resolves when the worker takes jobs, or when it was stopped before it did. */
  start(): Promise<void> {
    if (this.#startedAt > 0)
      throw new ConfigError("This worker was started already; make a new one with saq.workers()");
    this.#startedAt = Date.now();
    this.#starting = this.#start();
    return this.#starting;
  }

  async #start(): Promise<void> {
    const { broker, config } = this.#queue;
    const steps: (() => Promise<unknown>)[] = [
      () => this.#queue.connect(),
      async () => this.#letGo.push(await broker.vouchFor(this.workerId)),
      () => this.#beat(),
      async () => this.#letGo.push(await broker.subscribe(() => this.#feeder.wake())),
    ];
    for (const step of steps) if (!this.#stopping) await step();
    if (this.#stopping) return;
    this.logger.info(
      { workerId: this.workerId, concurrency: config.concurrency, tasks: Object.keys(config.tasks) },
      `Worker starting: ${this.queueName}`,
    );
    this.#heartbeat.start();
    this.#upkeep.start();
    await this.#feeder.tick();
  }

  /** Ends the worker (W-17). Idle, it takes well under a second; calls after the first wait for it (W-16). */
  stop({ grace }: { grace?: number } = {}): Promise<void> {
    this.#stopping ??= this.#stop(grace === undefined ? this.#graceMs : grace * 1_000);
    return this.#stopping;
  }

  async #stop(graceMs: number): Promise<void> {
    this.logger.info({ workerId: this.workerId, running: this.#running.size }, "Worker shutting down");
    const givenBack = this.#feeder.stop().then((jobs) => this.#giveBack(jobs));
    const upkeepEnded = this.#upkeep.stop();
    await within(graceMs, Promise.race([this.#idle(), this.#hurried]));
    if (this.#running.size > 0) {
      this.logger.warn(
        { jobs: this.runningKeys },
        "Some tasks did not finish within the shutdown grace period, requesting cancellation",
      );
      for (const attempt of this.#running.values())
        attempt.interrupt("shutdown", "the worker is shutting down");
      // Each attempt ends by its own hard deadline; the little more is for the timers to fire.
      await within(this.hardDeadlineMs + 1_000, this.#idle());
    }
    // From here on only the database can hold things up, and it may be away.
    await within(
      settlePatienceMs,
      givenBack.then(() => this.#settled()),
    );
    await within(sweepPatienceMs, upkeepEnded);
    await within(leavePatienceMs, this.#leave());
    this.logger.info({ workerId: this.workerId, ...this.stats }, "Worker stopped");
  }

  /** Undoes what `start` did, in reverse; a start under way ends at its next step. */
  async #leave(): Promise<void> {
    await this.#starting?.catch(() => {});
    await this.#heartbeat.stop();
    await this.#queue.broker.retire(this.workerId).catch(() => {});
    for (const letGo of [...this.#letGo].reverse()) await letGo();
  }

  #idle(): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#becameIdle = resolve;
    });
  }

  async #settled(): Promise<void> {
    while (this.#settling.size > 0) await Promise.all(this.#settling);
  }

  // --- running jobs ---

  #fill(): void {
    while (!this.#stopping && this.#running.size < this.#queue.config.concurrency) {
      const claimed = this.#feeder.next();
      if (!claimed) break;
      this.#startJob(claimed);
    }
    this.#feeder.refill();
  }

  #startJob(claimed: ClaimedJob): void {
    const fields = this.#decode(claimed);
    if (!fields) return;
    const attempt = new Attempt(this, claimed, fields);
    // The job came back while its last run still goes on in this process: taken over and given up elsewhere meanwhile,
    // or a task that outlived its deadline. Never two runs of one key here (D-46): back with it, for a second or for
    // another worker.
    const last = this.#running.get(claimed.key);
    last?.interrupt("lost", "taken over by another worker");
    if (last || this.#overdue.has(claimed.key)) {
      this.#settle(attempt, { ...release(attempt), scheduled: Math.ceil(this.now() / 1_000) + 1 });
      return;
    }
    this.#running.set(claimed.key, attempt);
    this.#report.started(attempt);
    attempt.run((ctx) => this.#call(fields, ctx));
  }

  #call(fields: JobFields, ctx: unknown): unknown {
    const { tasks } = this.#queue.config;
    const task = findTask(tasks, fields.function);
    if (!task)
      throw new Error(`Unknown task "${fields.function}" (registered: ${Object.keys(tasks).join(", ")})`);
    const run = runnerOf(task) as (ctx: unknown, payload: unknown) => unknown;
    const payload = validatePayload(fields.function, task, fields.kwargs ?? {});
    return payload instanceof Promise ? payload.then((output) => run(ctx, output)) : run(ctx, payload);
  }

  #decode(claimed: ClaimedJob): JobFields | null {
    try {
      return decodeJob(claimed.document, this.queueName, "active");
    } catch (error) {
      this.logger.error(
        { err: error, job: claimed.key },
        "the stored document is not a SAQ job; set aside as failed",
      );
      const settled = this.#queue.broker
        .change(claimed.key, (row) => ({
          change: row.token === claimed.token ? setAside : null,
          answer: null,
        }))
        .catch((reason: unknown) =>
          this.logger.error({ err: reason, job: claimed.key }, "could not set a job aside"),
        );
      this.#track(settled.then(() => {}));
      return null;
    }
  }

  /** An attempt is over: its slot is free at once, what came of it is recorded with the next statement. */
  ended(attempt: Attempt, end: AttemptEnd): void {
    const { fields } = attempt;
    this.#running.delete(fields.key);
    this.#feeder.measure(performance.now() - attempt.startedAt, fields.timeout);
    if (end.kind === "interrupted" && end.overdue) this.#remember(attempt);
    const settlement = settlementOf(attempt, end, {
      nowMs: this.now(),
      failedTtl: this.#queue.config.failedTtl,
    });
    if (settlement) this.#settle(attempt, settlement, end);
    else this.#report.lost(attempt);
    if (this.#running.size === 0) this.#becameIdle();
    this.#fill();
  }

  #remember(attempt: Attempt): void {
    const { key } = attempt.fields;
    this.#report.overdue(attempt);
    const gone = (attempt.settled ?? Promise.resolve()).then(() => {
      this.#overdue.delete(key);
    });
    this.#overdue.set(key, gone);
  }

  #settle(attempt: Attempt, settlement: Settlement, end?: AttemptEnd): void {
    this.#track(
      this.#queue.broker.settle(settlement).then(
        (result) => {
          if (attempt.fields.groupKey !== null) this.#feeder.groupEnded();
          if (settlement.status === "queued" && settlement.scheduled <= this.now() / 1_000)
            this.#feeder.wake();
          if (end) this.#report.settled(attempt, end, settlement.status, result);
        },
        (error: unknown) => this.#report.unsettled(attempt, settlement, error),
      ),
    );
  }

  #giveBack(jobs: readonly ClaimedJob[]): void {
    for (const claimed of jobs) {
      const fields = this.#decode(claimed);
      if (!fields) continue;
      const attempt = new Attempt(this, claimed, fields);
      this.#settle(attempt, release(attempt));
    }
  }

  #track(settling: Promise<void>): void {
    this.#settling.add(settling);
    void settling.finally(() => {
      this.#settling.delete(settling);
      if (this.#settling.size === mostUnsettled) this.#fill();
    });
  }

  // --- what tasks ask for ---

  async touch(claim: ClaimedJob, patch: string, removed: readonly string[]): Promise<boolean> {
    const [owned] = await this.#queue.broker.touch([{ ...claim, patch, removed }]);
    return owned === true;
  }

  async enqueue(task: AnyTask, args: unknown[]): Promise<{ readonly id: string } | null> {
    const name = this.#names.get(task);
    if (name === undefined) {
      throw new ConfigError(
        `ctx.enqueue: this task is not in the tasks of queue "${this.queueName}"; add it in defineQueue`,
      );
    }
    const [payload, options] = args as [payload?: unknown, options?: EnqueueOptions];
    return this.#queue.enqueue(name, payload, options);
  }

  async #beat(): Promise<void> {
    const { broker, config } = this.#queue;
    const stats = { ...this.stats, uptime: Date.now() - this.#startedAt };
    const row = { workerId: this.workerId, stats, metadata: config.metadata, queueKey: this.queueName };
    await broker.beat(row, Math.ceil(config.timers.workerInfo * 3));
  }
}
