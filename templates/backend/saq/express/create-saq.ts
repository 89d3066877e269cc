/**
 * Connects a configuration with an Express application: queues for the handlers, the web UI, workers, start and stop.
 */
import { type RequestHandler, Router } from "express";
import type { Application } from "../application.js";
import type { QueueConfig, SaqConfig } from "../config/index.js";
import { connectBrokers } from "../connect.js";
import { SaqError } from "../errors.js";
import { type Logger, silentLogger } from "../logger.js";
import { Queue } from "../queue/queue.js";
import type { TaskMap } from "../tasks/task.js";
import { createWebRouter } from "../web/index.js";
import { type ConnectOptions, connectWithRetry, Worker, type WorkerOptions } from "../worker/index.js";

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
   * Stops the workers made here, sends what is still to be sent, then closes the connections.
   *
   * @example
   * await saq.close();
   */
  close(): Promise<void>;
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
 * @throws AddressError if a certificate file that a dsn names cannot be read
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
      return [queue.name, new Queue(queue, broker)] as const;
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
  const makeWorkers: Saq["workers"] = ({ queues: names, ...options } = {}) => {
    const added = (names ? names.map(get) : all()).map((queue) => new Worker(queue, { logger, ...options }));
    workers.push(...added);
    return added;
  };
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
    startInProcessWorkers: async () => {
      const names = config.queues.filter((queue) => !queue.separateProcess).map((queue) => queue.name);
      inProcess ??= makeWorkers({ queues: names });
      // Each worker connects its queue first: without a connection, its claims would only fail.
      await Promise.all(inProcess.map((worker) => worker.start()));
      return inProcess;
    },
    connect: async ({ wait = false, signal } = {}) => {
      const connect = (queue: Queue) =>
        wait ? connectWithRetry(queue, { logger, signal }) : queue.connect();
      await Promise.all(all().map(connect));
    },
    close: async () => {
      await Promise.all(workers.map((worker) => worker.stop()));
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
