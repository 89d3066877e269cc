/** Ties a configuration to an Express application: queues for the handlers, the web UI, workers, life span. */
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
  /** @throws SaqError unknown_queue */
  get<const Name extends QueueNames<Config>>(name: Name): Queue<TasksOf<Config, Name>>;
  all(): Queue[];
}

export interface Health {
  /** Live workers of all queues. */
  workers: number;
  queues: { name: string; workers: number }[];
}

export interface Saq<Config extends SaqConfig = SaqConfig> {
  taskQueues: TaskQueues<Config>;
  webPath: string;
  /** That of the configuration; silent where it has none. */
  logger: Logger;
  /** Puts the queues where handlers find them: `req.taskQueues` and `app.locals.taskQueues`. */
  middleware(): RequestHandler;
  /** The JSON API and pages of the web UI; empty unless enabled. */
  router(): Router;
  /**
   * A worker per queue, or per named queue, not started yet.
   *
   * @throws SaqError unknown_queue
   */
  workers(options?: WorkerOptions & { queues?: readonly string[] | undefined }): Worker[];
  /** Starts and answers the workers that run in this process (`separateProcess: false`); `close` stops them (S-22). */
  startInProcessWorkers(): Promise<readonly Worker[]>;
  /**
   * Connects every queue, so that a wrong DSN shows at the start and not with the first request (D-86).
   *
   * `wait`: waits for a database that is away, for as long as the queue's `startTimeout` says, or until `signal` fires.
   */
  connect(options?: ConnectOptions): Promise<void>;
  /** Stops the workers made here, sends what is under way, closes the connections. */
  close(): Promise<void>;
  /** Fails when a database does not answer. */
  health(): Promise<Health>;
}

type ApplicationConfig = Application extends { config: infer Config extends SaqConfig } ? Config : SaqConfig;

declare module "express-serve-static-core" {
  interface Request {
    taskQueues: TaskQueues<ApplicationConfig>;
  }
}

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
      `Could not find the specified queue. Please check your configuration. (asked for "${name}", there is: ${[...queues.keys()].join(", ")})`,
    );
  };
  const workers: Worker[] = [];
  let inProcess: Worker[] | undefined;
  const makeWorkers: Saq["workers"] = ({ queues: names, ...options } = {}) => {
    const made = (names ? names.map(get) : all()).map((queue) => new Worker(queue, { logger, ...options }));
    workers.push(...made);
    return made;
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
      // Each connects its queue first: a worker on a closed door would only complain (D-78).
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
