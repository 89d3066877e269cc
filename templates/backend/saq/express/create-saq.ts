/**
 * Connects a configuration with an Express application: queues for the handlers, the web UI, workers, start and stop.
 */
import { type RequestHandler, Router } from "express";
import type { Application } from "../application.js";
import type { QueueConfig, SaqConfig } from "../config/index.js";
import { connectBrokers } from "../connect.js";
import { ConfigError, SaqError } from "../errors.js";
import { type Logger, silentLogger } from "../logger.js";
import { Queue } from "../queue/queue.js";
import type { TaskMap } from "../tasks/task.js";
import { createWebRouter } from "../web/index.js";
import {
  type ConnectOptions,
  connectWithRetry,
  Worker,
  type WorkerOptions,
  type WorkerProcesses,
} from "../worker/index.js";
import { createServerProcesses, type ServerLifespanOptions } from "./server-lifespan.js";

type QueueNames<Config extends SaqConfig> = Config["queues"][number]["name"];
type TasksOf<Config extends SaqConfig, Name> =
  Extract<Config["queues"][number], { name: Name }> extends QueueConfig<string, infer Tasks extends TaskMap>
    ? Tasks
    : TaskMap;

/** The queues by name, typed by their configuration. */
export interface TaskQueues<Config extends SaqConfig = SaqConfig> {
  /**
   * Returns the queue with this name.
   *
   * @throws SaqError unknown_queue if the configuration has no such queue
   * @example
   * const queue = saq.taskQueues.get("default");
   */
  get<const Name extends QueueNames<Config>>(name: Name): Queue<TasksOf<Config, Name>>;
  /**
   * Returns all queues, in the order of the configuration.
   *
   * @example
   * const names = saq.taskQueues.all().map(({ name }) => name);
   */
  all(): Queue[];
}

/** The numbers of live workers. */
export interface Health {
  /** Number of live workers of all queues. */
  workers: number;
  /** The same for each queue, in the order of the configuration. */
  queues: { name: string; workers: number }[];
}

/** What an application uses of a configuration; made by `createSaq`. */
export interface Saq<Config extends SaqConfig = SaqConfig> {
  /** The queues by name. */
  taskQueues: TaskQueues<Config>;
  /** Path of the web UI, for instance `/saq`. */
  webPath: string;
  /** The configuration's logger, or a silent one if it has none. */
  logger: Logger;
  /**
   * Returns middleware that puts the queues where handlers find them: `req.taskQueues` and `app.locals.taskQueues`.
   *
   * @example
   * app.use(saq.middleware());
   */
  middleware(): RequestHandler;
  /**
   * Returns a router with the JSON API and the pages of the web UI. It is empty unless the UI is enabled.
   *
   * @throws ConfigError (config) if the UI is enabled and its static files were not copied to the compiled engine
   * @example
   * app.use(saq.webPath, saq.router());
   */
  router(): Router;
  /**
   * Returns a worker for each queue, or for each named queue. They are not started yet; `close` stops them.
   *
   * @throws SaqError unknown_queue if a name in `queues` is not a queue
   * @example
   * const workers = saq.workers({ queues: ["default"] });
   * await Promise.all(workers.map((worker) => worker.start()));
   */
  workers(options?: WorkerOptions & { queues?: readonly string[] | undefined }): Worker[];
  /**
   * Starts and returns the workers that run in this process (`separateProcess: false`). `close` stops them.
   *
   * @throws what `Worker.start` throws, also at a second call while they run
   * @example
   * const workers = await saq.startInProcessWorkers();
   */
  startInProcessWorkers(): Promise<readonly Worker[]>;
  /**
   * Starts the workers that run as long as the server: in this process for queues with `separateProcess: false`, and
   * with `useServerLifespan: true` in `workerProcesses` processes for each other queue. Resolves when all of them take
   * jobs, or when they are stopped before that. `close` stops them.
   *
   * A worker process that ends while the server runs is started again after 1 s. This pause doubles with each death, up
   * to 30 s, and is 1 s again after the process ran for a minute.
   *
   * @throws SaqError worker_failed if a worker process cannot start; ConfigError if there is no such `module`, or at a
   *   second call; what `Worker.start` throws. All these workers are stopped then.
   * @example
   * await saq.startServerLifespan();
   */
  startServerLifespan(options?: ServerLifespanOptions): Promise<void>;
  /**
   * Ends the grace period of the workers that were created here, in a stop in progress or in the next one: running jobs
   * are cancelled and go back into the queue.
   *
   * @example
   * process.on("SIGQUIT", () => saq.hurry());
   */
  hurry(): void;
  /**
   * Connects every queue, so that a wrong DSN shows at the start and not with the first request.
   *
   * `wait`: waits for a database that is unreachable, for at most the queue's `startTimeout` (s), or until `signal`
   * fires: then it resolves without a connection.
   *
   * @throws SaqError database_unavailable if a database cannot be reached; config or schema_version if it cannot be
   *   used; queue_closed after `close`
   * @example
   * await saq.connect({ wait: true });
   */
  connect(options?: ConnectOptions): Promise<void>;
  /**
   * Stops the workers made here, in this process and in others, sends what is still to be sent, then closes the
   * connections. A worker process that does not stop in time is killed.
   *
   * `grace`: how long running jobs may continue, s; by default the queue's `shutdownGracePeriod`.
   *
   * @example
   * await saq.close();
   */
  close(options?: { grace?: number }): Promise<void>;
  /**
   * Returns the numbers of live workers.
   *
   * @throws SaqError database_unavailable if a database does not answer; queue_closed, config or schema_version, as
   *   `connect` does
   * @example
   * const { workers } = await saq.health();
   */
  health(): Promise<Health>;
}

type ApplicationConfig = Application extends { config: infer Config extends SaqConfig } ? Config : SaqConfig;

declare module "express-serve-static-core" {
  interface Request {
    taskQueues: TaskQueues<ApplicationConfig>;
  }
}

/**
 * Makes the queues, workers and web UI of a configuration. No connection is opened before `connect` or the first use of
 * a queue.
 *
 * @throws ConfigError (config) that names the queue, if a certificate file that its dsn names cannot be read
 * @throws ConfigError if `enableOtel` is true and the package `@opentelemetry/api` is not installed
 * @example
 * const saq = createSaq(saqConfig);
 * await saq.connect();
 * app.use(saq.middleware());
 * app.use(saq.webPath, saq.router());
 */
export function createSaq<const Config extends SaqConfig>(config: Config): Saq<Config> {
  const logger = config.logger ?? silentLogger;
  const brokers = connectBrokers(config.queues, logger);
  const queues = new Map(
    config.queues.map((queue, index) => {
      const broker = brokers[index];
      if (!broker) throw new SaqError("config", `Queue "${queue.name}" has no broker`);
      const enableOtel = queue.enableOtel ?? config.enableOtel;
      return [queue.name, new Queue({ ...queue, enableOtel }, broker, { logger })] as const;
    }),
  );
  const all = () => [...queues.values()];
  const get = (name: string): Queue => {
    const queue = queues.get(name);
    if (queue) return queue;
    throw new SaqError(
      "unknown_queue",
      "Could not find the specified queue. Please check your configuration. " +
        `(asked for "${name}", known: ${[...queues.keys()].join(", ")})`,
    );
  };
  const workers: Worker[] = [];
  let inProcess: Worker[] | undefined;
  let processes: WorkerProcesses | undefined;
  const makeWorkers: Saq["workers"] = ({ queues: names, ...options } = {}) => {
    const added = (names ? names.map(get) : all()).map((queue) => new Worker(queue, { logger, ...options }));
    workers.push(...added);
    return added;
  };
  const startInProcessWorkers = async () => {
    const names = config.queues.filter((queue) => !queue.separateProcess).map((queue) => queue.name);
    inProcess ??= makeWorkers({ queues: names });
    // Each worker connects its queue first: without a connection, its claims would only fail.
    await Promise.all(inProcess.map((worker) => worker.start()));
    return inProcess;
  };
  const stopWorkers = ({ grace }: { grace?: number } = {}) =>
    Promise.all([processes?.stop(grace), ...workers.map((worker) => worker.stop({ grace }))]);
  const taskQueues = { get, all } as unknown as TaskQueues<Config>;
  return {
    taskQueues,
    webPath: config.web.path,
    logger,
    middleware: () => (req, _res, next) => {
      req.taskQueues = taskQueues as unknown as TaskQueues<ApplicationConfig>;
      req.app.locals.taskQueues = taskQueues;
      next();
    },
    router: () => (config.web.enabled ? createWebRouter({ ...config.web, queues: all(), logger }) : Router()),
    workers: makeWorkers,
    startInProcessWorkers,
    startServerLifespan: async ({ signal, ...options } = {}) => {
      if (processes) {
        throw new ConfigError(
          "The server's workers are already started. Call saq.startServerLifespan() once, and saq.close() to stop them",
        );
      }
      const started = createServerProcesses(config, options, logger);
      processes = started;
      if (signal?.aborted) return;
      signal?.addEventListener("abort", () => started.restartNone(), { once: true });
      try {
        await Promise.all([startInProcessWorkers(), started.start()]);
      } catch (error) {
        await stopWorkers({ grace: 0 });
        throw error;
      }
    },
    hurry: () => {
      processes?.hurry();
      for (const worker of workers) worker.hurry();
    },
    connect: async ({ wait = false, signal } = {}) => {
      const connect = (queue: Queue) =>
        wait ? connectWithRetry(queue, { logger, signal }) : queue.connect();
      await Promise.all(all().map(connect));
    },
    close: async (options) => {
      await stopWorkers(options);
      await Promise.all(all().map((queue) => queue.close()));
    },
    health: async () => {
      const counted = await Promise.all(
        all().map(async (queue) => ({ name: queue.name, workers: (await queue.workers()).length })),
      );
      return { workers: counted.reduce((sum, { workers }) => sum + workers, 0), queues: counted };
    },
  };
}
