/** A worker: claims jobs of one queue and runs `concurrency` of them at a time. */
import type { WorkerStats } from "../broker.js";
import { ConfigError } from "../errors.js";
import { type Logger, neverThrowing, silentLogger } from "../logger.js";
import type { Queue } from "../queue/queue.js";
import { Life } from "./life.js";

export interface WorkerOptions {
  logger?: Logger;
  /** Overrides the queue's own, s. */
  shutdownGracePeriod?: number;
}

export interface WorkerHealth {
  isRunning: boolean;
  /** Claiming jobs fails at present; it is tried again, 5 s apart at most. */
  isFailing: boolean;
  /** Why claiming failed the last time it did (D-4). */
  lastError: { message: string; at: Date } | null;
  /**
   * `afterProcess` hooks: at most `concurrency` run at a time, the others wait; no job starts while 4,000 wait.
   * `overdue` ones have not ended within `hookTimeout` and still go on.
   */
  hooks: { running: number; waiting: number; overdue: number };
}

export class Worker {
  readonly queueName: string;
  readonly #queue: Queue;
  readonly #logger: Logger;
  readonly #graceMs: number;
  #life: Life;

  constructor(queue: Queue, { logger = silentLogger, shutdownGracePeriod }: WorkerOptions = {}) {
    if (queue.isForeign) {
      throw new ConfigError(
        `Queue "${queue.name}" was made by Queue.fromUrl and has no tasks, so that a worker would fail every job; ` +
          "give the worker a queue of createSaq(config)",
      );
    }
    this.queueName = queue.name;
    this.#queue = queue;
    this.#logger = neverThrowing(logger);
    this.#graceMs = (shutdownGracePeriod ?? queue.config.shutdownGracePeriod) * 1_000;
    this.#life = new Life(queue, this.#logger);
  }

  /** Not started by the web process (S-22). */
  get hasSeparateProcess(): boolean {
    return this.#queue.config.separateProcess;
  }

  /** Of this start; the next one has another, so that others can tell which of the two is alive. */
  get workerId(): string {
    return this.#life.workerId;
  }

  /** Keys of the jobs that run now. */
  get runningKeys(): string[] {
    return [...this.#life.runner.running.keys()];
  }

  /** Keys of the jobs whose task outlived its hard deadline and still goes on. */
  get overdueKeys(): string[] {
    return this.#life.runner.overdueKeys;
  }

  get stats(): Omit<WorkerStats, "uptime"> {
    return this.#life.runner.report.stats;
  }

  /** How it fares. */
  get health(): WorkerHealth {
    const { lastError, isFailing } = this.#life.runner.claims;
    return {
      isRunning: this.#life.hasBegun && !this.#life.hasStopped,
      isFailing,
      hooks: this.#life.runner.hooks,
      lastError: lastError && { message: String((lastError.error as Error)?.message), at: lastError.at },
    };
  }

  /** Resolves when the worker has stopped: by `stop`, by the end of its burst, or because it could not start. */
  get finished(): Promise<void> {
    return this.#life.finished;
  }

  /**
   * Resolves when the worker takes jobs, or when it was stopped before it did. After a stop it may be started again
   * (W-5). What a start-up hook throws ends the worker and is thrown here.
   *
   * @throws ConfigError while it runs
   */
  async start(): Promise<void> {
    if (this.#life.hasStopped) this.#life = new Life(this.#queue, this.#logger);
    if (this.#life.hasBegun) {
      throw new ConfigError(
        "This worker was started already; stop it first, or make another with saq.workers()",
      );
    }
    await this.#life.start();
  }

  /**
   * Ends the worker (W-17): running jobs may go on for `grace` seconds. Idle, it takes well under a second; calls after
   * the first wait for it (W-16).
   */
  stop({ grace }: { grace?: number } = {}): Promise<void> {
    return this.#life.stop(grace === undefined ? this.#graceMs : grace * 1_000);
  }

  /**
   * Ends the worker after an uncaught error: as `stop` without a grace period, but what runs now counts as lost. A job
   * that ends its workers again and again fails at the queue's `lostLimit`.
   */
  crash(): Promise<void> {
    this.#life.runner.crashed();
    const stopped = this.#life.stop(0);
    this.#life.hurry();
    return stopped;
  }

  /** Ends the grace period of a stop under way. */
  hurry(): void {
    this.#life.hurry();
  }
}
