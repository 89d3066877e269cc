/**
 * A worker: claims jobs of one queue and runs `concurrency` of them at a time.
 *
 * Starting goes from the outside in: sign of life, then LISTEN, then the first claim, so that nothing is claimed that
 * nobody vouches for and no notification is missed (D-7). Stopping goes the other way round: no more claims, what was
 * not started is given back, running jobs get the grace period, then their signal, then the hard deadline; what still
 * runs goes back into the queue uncharged (W-17). The sign of life is the last thing to end.
 */
import type { ClaimedJob, WorkerStats } from "../broker.js";
import { findTask } from "../config.js";
import { ConfigError } from "../errors.js";
import type { JobFields } from "../job.js";
import { type Logger, silentLogger } from "../logger.js";
import type { Queue } from "../queue.js";
import { type AnyTask, type EnqueueOptions, runnerOf, validatePayload } from "../task.js";
import { setAside } from "../transitions.js";
import { decodeJob } from "../wire.js";
import { Attempt, type AttemptEnd, type AttemptHost } from "./attempt.js";
import { Feeder } from "./feeder.js";
import { release, settlementOf } from "./outcome.js";
import { Upkeep } from "./upkeep.js";

export interface WorkerOptions {
  logger?: Logger;
  /** Overrides the queue's own, s. */
  shutdownGracePeriod?: number;
}

/** Others step in this long after a living worker should have ended a job itself, s (5.2). */
const sweepGraceSeconds = 5;
/** Results that wait to be recorded before the worker stops starting jobs. */
const mostUnsettled = 2_000;
/** How long a stop waits for results to be recorded while the database is away. */
const settlePatienceMs = 10_000;

export class Worker implements AttemptHost {
  readonly workerId: string;
  readonly queueName: string;
  readonly logger: Logger;
  readonly hardDeadlineMs: number;
  readonly stats: Omit<WorkerStats, "uptime"> = { complete: 0, failed: 0, retried: 0, aborted: 0 };
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
  #startedAt = 0;
  #letGo: (() => Promise<void>)[] = [];
  #stopping: Promise<void> | null = null;
  #idle: (() => void) | null = null;
  #hurry: () => void = () => {};

  constructor(queue: Queue, { logger = silentLogger, shutdownGracePeriod }: WorkerOptions = {}) {
    const { config, broker } = queue;
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
    this.#upkeep = new Upkeep(
      [
        {
          name: "schedule",
          every: pollInterval || timers.schedule,
          alignedTo: now,
          run: () => this.#feeder.tick(),
        },
        { name: "abort", every: timers.abort, run: () => this.#interruptEnded() },
        {
          name: "lost",
          every: timers.lost,
          run: async () => this.#swept(await broker.sweepLost(this.#limits())),
        },
        {
          name: "sweep",
          every: timers.sweep,
          run: async () => this.#swept(await broker.sweepStuck(this.#limits())),
        },
      ],
      logger,
    );
  }

  /** Keys of the jobs that run now. */
  get runningKeys(): string[] {
    return [...this.#running.keys()];
  }

  now(): number {
    return this.#queue.broker.now();
  }

  /** Resolves when the worker takes jobs. */
  async start(): Promise<void> {
    if (this.#startedAt > 0)
      throw new ConfigError("This worker was started already; make a new one with saq.workers()");
    this.#startedAt = Date.now();
    const { broker, config } = this.#queue;
    await this.#queue.connect();
    this.#letGo.push(await broker.vouchFor(this.workerId));
    await this.#beat();
    this.#heartbeat.start();
    this.#letGo.push(await broker.subscribe(() => this.#feeder.wake()));
    this.logger.info(
      { workerId: this.workerId, concurrency: config.concurrency, tasks: Object.keys(config.tasks) },
      `Worker starting: ${this.queueName}`,
    );
    this.#upkeep.start();
    await this.#feeder.tick();
  }

  /** Ends the worker (W-17). Idle, it takes well under a second; calls after the first wait for it (W-16). */
  stop({ grace }: { grace?: number } = {}): Promise<void> {
    this.#stopping ??= this.#stop(grace === undefined ? this.#graceMs : grace * 1_000);
    return this.#stopping;
  }

  /** Ends the grace period of a stop under way. */
  hurry(): void {
    this.#hurry();
  }

  async #stop(graceMs: number): Promise<void> {
    this.logger.info({ workerId: this.workerId, running: this.#running.size }, "Worker shutting down");
    this.#giveBack(await this.#feeder.stop());
    await this.#upkeep.stop();
    if (!(await this.#idleWithin(graceMs))) {
      this.logger.warn(
        { jobs: this.runningKeys },
        "Some tasks did not finish within the shutdown grace period, requesting cancellation",
      );
      for (const attempt of this.#running.values())
        attempt.interrupt("shutdown", "the worker is shutting down");
      // Each attempt ends by its own hard deadline; the little more is for the timers to fire.
      await this.#idleWithin(this.hardDeadlineMs + 1_000);
    }
    await Promise.race([
      this.#settled(),
      new Promise((resolve) => setTimeout(resolve, settlePatienceMs).unref()),
    ]);
    await this.#heartbeat.stop();
    await this.#queue.broker.retire(this.workerId).catch(() => {});
    for (const letGo of this.#letGo.reverse()) await letGo();
    this.logger.info({ workerId: this.workerId, ...this.stats }, "Worker stopped");
  }

  /** False when jobs still run after that time. */
  #idleWithin(ms: number): Promise<boolean> {
    if (this.#running.size === 0) return Promise.resolve(true);
    return new Promise((resolve) => {
      const done = (idle: boolean) => {
        clearTimeout(timer);
        this.#idle = null;
        this.#hurry = () => {};
        resolve(idle);
      };
      const timer = setTimeout(() => done(false), ms);
      this.#idle = () => done(true);
      this.#hurry = () => done(false);
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
    if (this.#overdue.has(claimed.key)) {
      // Its last run still goes on in this process: back with it, for a second or for another worker.
      this.#settle(attempt, { ...release(attempt), scheduled: Math.ceil(this.now() / 1_000) + 1 });
      return;
    }
    this.#running.set(claimed.key, attempt);
    if (this.logger.isLevelEnabled?.("info") ?? true) {
      this.logger.info(
        { job: fields.key, task: fields.function, attempt: fields.attempts },
        `Processing ${fields.function}`,
      );
    }
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
    if (end.kind === "interrupted" && end.overdue) this.#remember(attempt, end.why);
    const settlement = settlementOf(attempt, end, {
      nowMs: this.now(),
      failedTtl: this.#queue.config.failedTtl,
    });
    if (settlement) this.#settle(attempt, settlement, end);
    else
      this.logger.warn(
        { job: fields.key, task: fields.function },
        "lost the job to another worker, its outcome is dropped",
      );
    if (this.#running.size === 0) this.#idle?.();
    this.#fill();
  }

  #remember(attempt: Attempt, why: string): void {
    const { key, function: name } = attempt.fields;
    this.logger.warn(
      { job: key, task: name, why },
      `Function '${name}' did not finish cancellation in time, it may be stuck or blocked`,
    );
    const gone = (attempt.settled ?? Promise.resolve()).then(() => {
      this.#overdue.delete(key);
    });
    this.#overdue.set(key, gone);
  }

  #settle(attempt: Attempt, settlement: ReturnType<typeof release>, end?: AttemptEnd): void {
    this.#track(
      this.#queue.broker.settle(settlement).then(
        (result) => {
          if (attempt.fields.groupKey !== null) this.#feeder.groupEnded();
          if (settlement.status === "queued" && settlement.scheduled <= this.now() / 1_000)
            this.#feeder.wake();
          if (end) this.#report(attempt, result === "applied" ? settlement.status : result, end);
        },
        (error: unknown) => {
          this.logger.error(
            { err: error, job: attempt.fields.key, status: settlement.status },
            "could not record how a job ended; it will be swept and may run again",
          );
        },
      ),
    );
  }

  #report(
    attempt: Attempt,
    status: "complete" | "failed" | "aborted" | "queued" | "lost",
    end: AttemptEnd,
  ): void {
    const { key, function: name } = attempt.fields;
    const ms = Math.round(performance.now() - attempt.startedAt);
    const fields = { job: key, task: name, ms };
    const error = end.kind === "threw" ? end.error : end.kind === "interrupted" ? end.reason : undefined;
    switch (status) {
      case "complete":
        this.stats.complete++;
        if (this.logger.isLevelEnabled?.("info") ?? true) this.logger.info(fields, `Finished ${name}`);
        return;
      case "failed":
        this.stats.failed++;
        this.logger.error({ ...fields, err: error }, `Failed ${name}`);
        return;
      case "aborted":
        this.stats.aborted++;
        this.logger.info(fields, `Aborted ${name}`);
        return;
      case "queued":
        if (end.kind === "interrupted" && end.why === "shutdown") {
          this.logger.info(fields, `Requeued ${name}, the worker is shutting down`);
          return;
        }
        this.stats.retried++;
        this.logger.warn({ ...fields, err: error }, `Retrying ${name}`);
        return;
      case "lost":
        this.logger.warn(fields, "lost the job to another worker, its outcome is dropped");
    }
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

  // --- upkeep ---

  #limits() {
    const { config } = this.#queue;
    return {
      graceSeconds: config.cancellationHardDeadline + sweepGraceSeconds,
      lostLimit: config.lostLimit,
      failedTtl: config.failedTtl,
    };
  }

  async #beat(): Promise<void> {
    const { broker, config } = this.#queue;
    const stats = { ...this.stats, uptime: Date.now() - this.#startedAt };
    const row = { workerId: this.workerId, stats, metadata: config.metadata, queueKey: this.queueName };
    await broker.beat(row, Math.ceil(config.timers.workerInfo * 3));
  }

  /** Jobs that somebody aborted or took over, and jobs that have been silent for longer than their heartbeat. */
  async #interruptEnded(): Promise<void> {
    const now = this.now();
    const old: Attempt[] = [];
    for (const attempt of this.#running.values()) {
      const { heartbeat, touched } = attempt.fields;
      if (heartbeat && now - touched > heartbeat * 1_000)
        attempt.interrupt("timeout", `no heartbeat for ${heartbeat} s`);
      if (performance.now() - attempt.startedAt > this.#queue.config.timers.abort * 1_000) old.push(attempt);
    }
    if (old.length === 0) return;
    for (const { key, why } of await this.#queue.broker.interrupted(old.map((attempt) => attempt.claim))) {
      if (why === "abort") this.logger.info({ job: key }, `Aborting ${key}`);
      this.#running.get(key)?.interrupt(why, why === "abort" ? "aborted" : "taken over by another worker");
    }
  }

  #swept(keys: string[]): void {
    if (keys.length > 0) this.logger.info({ jobs: keys.slice(0, 20), count: keys.length }, "Sweeping");
  }
}
