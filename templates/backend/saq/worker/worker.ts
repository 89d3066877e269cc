/** A worker: claims jobs of one queue and runs `concurrency` of them at a time. */
import type { WorkerStats } from "../broker.js";
import { ConfigError } from "../errors.js";
import { type Logger, neverThrowing, silentLogger } from "../logger.js";
import type { Queue } from "../queue/queue.js";
import { WorkerRun } from "./lifecycle.js";

/** Options of a worker. */
export interface WorkerOptions {
  /** Logger of the worker and its tasks. @defaultValue none; for `saq.workers`, the configuration's logger */
  logger?: Logger;
  /** How long running jobs may continue after a stop request, s. @defaultValue the queue's `shutdownGracePeriod` */
  shutdownGracePeriod?: number;
}

/** The state of a worker. */
export interface WorkerHealth {
  /** True from the call of `start` until the worker has stopped. */
  isRunning: boolean;
  /** True while claiming jobs fails. Claims are retried, 5 s apart at most. */
  isFailing: boolean;
  /** The last error of a claim, and when it happened. It stays when claims work again. */
  lastError: { message: string; at: Date } | null;
  /**
   * Number of `afterProcess` hooks. At most `concurrency` of them run at a time and the others wait; no job starts
   * while more than 4,000 wait. `overdue` hooks (also those of `aroundProcess`) have not ended within `hookTimeout` and
   * still run.
   */
  hooks: { running: number; waiting: number; overdue: number };
}

/**
 * A worker: claims jobs of one queue and runs `concurrency` of them at a time. `saq.workers()` creates one for
 * each queue; `runWorkers` also handles the signals of a process.
 *
 * @example
 * const [worker] = saq.workers({ queues: ["default"] });
 * await worker?.start();
 */
export class Worker {
  /** Name of its queue. */
  readonly queueName: string;
  readonly #queue: Queue;
  readonly #logger: Logger;
  readonly #graceMs: number;
  #run: WorkerRun;

  /** @throws ConfigError (config) if the queue was created by `Queue.fromUrl`, because it has no tasks */
  constructor(queue: Queue, { logger = silentLogger, shutdownGracePeriod }: WorkerOptions = {}) {
    if (queue.isForeign) {
      throw new ConfigError(
        `Queue "${queue.name}" was created by Queue.fromUrl and has no tasks, so a worker would fail every job. ` +
          "Use a queue of createSaq(config)",
      );
    }
    this.queueName = queue.name;
    this.#queue = queue;
    this.#logger = neverThrowing(logger);
    this.#graceMs = (shutdownGracePeriod ?? queue.config.shutdownGracePeriod) * 1_000;
    this.#run = new WorkerRun(queue, this.#logger);
  }

  /** True if the web process does not start this worker. */
  get hasSeparateProcess(): boolean {
    return this.#queue.config.separateProcess;
  }

  /** Id of the current start. The next start has another id, so that others can tell which of the two is alive. */
  get workerId(): string {
    return this.#run.workerId;
  }

  /** Keys of the jobs that run now. */
  get runningKeys(): string[] {
    return [...this.#run.runner.running.keys()];
  }

  /** Keys of the jobs whose task still runs after its hard deadline. */
  get overdueKeys(): string[] {
    return this.#run.runner.overdueKeys;
  }

  /** Number of attempts of the current start, by how they ended. */
  get stats(): Omit<WorkerStats, "uptime"> {
    return this.#run.runner.report.stats;
  }

  /** Whether the worker runs, whether claims fail, and how many hooks it has. */
  get health(): WorkerHealth {
    const { lastError, isFailing } = this.#run.runner.claims;
    return {
      isRunning: this.#run.hasStarted && !this.#run.hasStopped,
      isFailing,
      hooks: this.#run.runner.hooks,
      lastError: lastError && { message: String((lastError.error as Error)?.message), at: lastError.at },
    };
  }

  /**
   * Resolves when the worker has stopped: by `stop`, by the end of its burst, or because it could not start. It belongs
   * to the current start. `stop` also resolves it for a worker that was never started.
   */
  get finished(): Promise<void> {
    return this.#run.finished;
  }

  /**
   * Starts the worker. Resolves when it takes jobs, or when it was stopped before that. After a stop it may be started
   * again.
   *
   * @throws ConfigError (config) if the worker is already started, or if a startup hook returns a member that ctx
   *   already has, or an object of a class
   * @throws SaqError database_unavailable if the database is still unreachable after the queue's `startTimeout` (s);
   *   queue_closed, config or schema_version if its queue cannot be connected
   * @throws the error of a startup hook; the worker is stopped then
   * @example
   * await worker.start();
   */
  async start(): Promise<void> {
    if (this.#run.hasStopped) this.#run = new WorkerRun(this.#queue, this.#logger);
    if (this.#run.hasStarted) {
      throw new ConfigError(
        "This worker is already started. Stop it first, or create another worker with saq.workers()",
      );
    }
    await this.#run.start();
  }

  /**
   * Stops the worker: running jobs may continue for `grace` seconds, by default for the shutdown grace period. Jobs
   * that still run then are cancelled and go back into the queue, and their attempts do not count. An idle worker stops
   * in well under a second. Later calls wait for the first one. Before `start` it only resolves `finished`.
   *
   * @example
   * await worker.stop({ grace: 30 });
   */
  stop({ grace }: { grace?: number } = {}): Promise<void> {
    return this.#run.stop(grace === undefined ? this.#graceMs : grace * 1_000);
  }

  /**
   * Stops the worker after an uncaught error. This is `stop` without a grace period, but the jobs that run now count as
   * lost: a job that ends its workers again and again fails at the queue's `lostLimit`. Resolves when the worker has
   * stopped.
   *
   * @example
   * process.on("uncaughtException", () => void worker.crash());
   */
  crash(): Promise<void> {
    this.#run.runner.markCrashed();
    const stopped = this.#run.stop(0);
    this.#run.endGracePeriod();
    return stopped;
  }

  /**
   * Ends the grace period of a stop under way.
   *
   * @example
   * const stopped = worker.stop();
   * worker.hurry();
   * await stopped;
   */
  hurry(): void {
    this.#run.endGracePeriod();
  }
}
