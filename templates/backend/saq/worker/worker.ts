/**
 * A worker: claims jobs of one queue and runs `concurrency` of them at a time.
 *
 * Starting goes from the outside in: sign of life, then LISTEN, then the first claim, so that nothing is claimed that
 * nobody vouches for and no notification is missed (D-7). Stopping goes the other way round: no more claims, what was
 * not started is given back, running jobs get the grace period, then their signal, then the hard deadline; what still
 * runs goes back into the queue uncharged (W-17). The sign of life is the last thing to end.
 */
import type { WorkerStats } from "../broker.js";
import { ConfigError } from "../errors.js";
import { type Logger, neverThrowing, silentLogger } from "../logger.js";
import type { Queue } from "../queue.js";
import { within } from "../within.js";
import { Runner } from "./runner.js";
import { Upkeep } from "./upkeep.js";
import { watch } from "./watch.js";

export interface WorkerOptions {
  logger?: Logger;
  /** Overrides the queue's own, s. */
  shutdownGracePeriod?: number;
}

/** How long a stop waits for results to be recorded while the database is away. */
const settlePatienceMs = 10_000;
/** How long a stop waits for a start or a sweep under way, and for its own farewell. */
const leavePatienceMs = 2_000;
const sweepPatienceMs = 500;

export class Worker {
  readonly workerId: string;
  /** Ends the grace period of a stop under way. */
  readonly hurry: () => void;
  readonly #queue: Queue;
  readonly #logger: Logger;
  readonly #graceMs: number;
  readonly #runner: Runner;
  readonly #upkeep: Upkeep;
  readonly #heartbeat: Upkeep;
  readonly #hurried: Promise<void>;
  readonly #letGo: (() => Promise<void>)[] = [];
  #startedAt = 0;
  #starting: Promise<void> | null = null;
  #stopping: Promise<void> | null = null;

  constructor(queue: Queue, { logger: given = silentLogger, shutdownGracePeriod }: WorkerOptions = {}) {
    const { config, broker } = queue;
    const logger = neverThrowing(given);
    let hurry = () => {};
    this.#hurried = new Promise((resolve) => {
      hurry = resolve;
    });
    this.hurry = hurry;
    this.workerId = broker.newWorkerId();
    this.#queue = queue;
    this.#logger = logger;
    this.#graceMs = (shutdownGracePeriod ?? config.shutdownGracePeriod) * 1_000;
    this.#runner = new Runner(queue, this.workerId, logger);
    const { timers, pollInterval } = config;
    this.#heartbeat = new Upkeep(
      [{ name: "beat", every: timers.workerInfo, run: () => this.#beat() }],
      logger,
    );
    const due = {
      name: "schedule",
      every: pollInterval || timers.schedule,
      alignedTo: () => broker.now(),
      run: () => this.#runner.tick(),
    };
    this.#upkeep = new Upkeep([due, ...watch(queue, this.#runner.running, logger)], logger);
  }

  /** Keys of the jobs that run now. */
  get runningKeys(): string[] {
    return [...this.#runner.running.keys()];
  }

  /** Keys of the jobs whose task outlived its hard deadline and still goes on. */
  get overdueKeys(): string[] {
    return this.#runner.overdueKeys;
  }

  get stats(): Omit<WorkerStats, "uptime"> {
    return this.#runner.report.stats;
  }

  /** Resolves when the worker takes jobs, or when it was stopped before it did. */
  async start(): Promise<void> {
    if (this.#startedAt > 0)
      throw new ConfigError("This worker was started already; make a new one with saq.workers()");
    this.#startedAt = Date.now();
    this.#starting = this.#start();
    await this.#starting;
  }

  async #start(): Promise<void> {
    const { broker, config } = this.#queue;
    const steps: (() => Promise<unknown>)[] = [
      () => this.#queue.connect(),
      async () => this.#letGo.push(await broker.vouchFor(this.workerId)),
      () => this.#beat(),
      async () => this.#letGo.push(await broker.subscribe(() => this.#runner.wake())),
    ];
    for (const step of steps) if (!this.#stopping) await step();
    if (this.#stopping) return;
    this.#logger.info(
      { workerId: this.workerId, concurrency: config.concurrency, tasks: Object.keys(config.tasks) },
      `Worker starting: ${this.#queue.name}`,
    );
    this.#heartbeat.start();
    this.#upkeep.start();
    await this.#runner.tick();
  }

  /** Ends the worker (W-17). Idle, it takes well under a second; calls after the first wait for it (W-16). */
  stop({ grace }: { grace?: number } = {}): Promise<void> {
    this.#stopping ??=
      this.#startedAt === 0
        ? Promise.resolve()
        : this.#stop(grace === undefined ? this.#graceMs : grace * 1_000);
    return this.#stopping;
  }

  async #stop(graceMs: number): Promise<void> {
    this.#logger.info(
      { workerId: this.workerId, running: this.#runner.running.size },
      "Worker shutting down",
    );
    const givenBack = this.#runner.close();
    const upkeepEnded = this.#upkeep.stop();
    await within(graceMs, Promise.race([this.#runner.idle(), this.#hurried]));
    if (this.#runner.running.size > 0) {
      this.#logger.warn(
        { jobs: this.runningKeys },
        "Some tasks did not finish within the shutdown grace period, requesting cancellation",
      );
      for (const attempt of this.#runner.running.values())
        attempt.interrupt("shutdown", "the worker is shutting down");
      // Each attempt ends by its own hard deadline; the little more is for the timers to fire.
      await within(this.#queue.config.cancellationHardDeadline * 1_000 + 1_000, this.#runner.idle());
    }
    // From here on only the database can hold things up, and it may be away.
    await within(
      settlePatienceMs,
      givenBack.then(() => this.#runner.settled()),
    );
    await within(sweepPatienceMs, Promise.all([upkeepEnded, this.#runner.endThreads()]));
    await within(leavePatienceMs, this.#leave());
    this.#logger.info({ workerId: this.workerId, ...this.stats }, "Worker stopped");
  }

  /** Undoes what `start` did, in reverse; a start under way ends at its next step. */
  async #leave(): Promise<void> {
    await this.#starting?.catch(() => {});
    await this.#heartbeat.stop();
    await this.#queue.broker.retire(this.workerId).catch(() => {});
    for (const letGo of [...this.#letGo].reverse()) await letGo();
  }

  async #beat(): Promise<void> {
    const { broker, config } = this.#queue;
    const stats = { ...this.stats, uptime: Date.now() - this.#startedAt };
    const row = { workerId: this.workerId, stats, metadata: config.metadata, queueKey: this.#queue.name };
    await broker.beat(row, Math.ceil(config.timers.workerInfo * 3));
  }
}
