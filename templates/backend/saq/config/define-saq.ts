/** The whole configuration: every queue, the web UI, and which workers the server starts. */
import type { RequestHandler } from "express";
import { ConfigError } from "../errors.js";
import type { Logger } from "../logger.js";
import { isClusterAddress, isRedisAddress, nameOfRedisAddress, parseRedisAddress } from "../redis-address.js";
import { checkEnableOtel, numberChecks, oneOf } from "./checks.js";
import type { QueueConfig } from "./queue-options.js";

/** What `defineSaq` takes. */
export interface SaqOptions<Queues extends readonly QueueConfig[]> {
  /** The queues, each made by `defineQueue`; at least one. */
  queues: Queues;
  /** The web UI. @defaultValue { enabled: false } */
  web?: WebOptions;
  /**
   * Spans and metrics of OpenTelemetry of all queues that do not set `enableOtel` themselves: true = always, false =
   * never. @defaultValue if `@opentelemetry/api` is installed and a provider is registered
   */
  enableOtel?: boolean;
  /** Logger of the queues, their workers and the web UI, for instance one of pino. @defaultValue none */
  logger?: Logger;
  /**
   * True: `saq.startServerLifespan()` starts worker processes, which stop with the server. False: workers are started
   * by themselves, for instance by `make start-worker`. @defaultValue false
   */
  useServerLifespan?: boolean;
  /**
   * Number of worker processes that the server starts for each queue; 1 to 1,000. Only for `useServerLifespan`. A queue
   * with `separateProcess: false` has none: its worker runs in the server's own process. @defaultValue 1
   */
  workerProcesses?: number;
}

interface WebOptions {
  /** Whether `saq.router()` serves the UI and its JSON API. */
  enabled: boolean;
  /** Path at which the router is mounted; not the root. @defaultValue "/saq" */
  path?: string;
  /**
   * Middleware that decides who may use the UI; it runs before anything else. Without guards the UI allows only
   * requests from this machine, and `defineSaq` refuses it in production. @defaultValue []
   */
  guards?: readonly RequestHandler[];
}

/** The whole configuration, as `defineSaq` returns it. */
export interface SaqConfig<Queues extends readonly QueueConfig[] = readonly QueueConfig[]> {
  readonly queues: Queues;
  readonly web: Required<WebOptions>;
  /** Null: if a provider is registered. */
  readonly enableOtel: boolean | null;
  readonly logger: Logger | undefined;
  readonly useServerLifespan: boolean;
  readonly workerProcesses: number;
}

/**
 * Defines the whole configuration: every queue and the web UI. Returns it for `createSaq`.
 *
 * @throws ConfigError if there is no queue, two queues share a name, the key of a scheduled task or keys on Redis, the
 * UI's path is the root, the UI is enabled in production without a guard, or another option has a value that is not
 * allowed
 * @example
 * export const saqConfig = defineSaq({
 *   queues: [mailQueue],
 *   web: { enabled: process.env.NODE_ENV !== "production" },
 * });
 */
export function defineSaq<const Queues extends readonly QueueConfig[]>(
  options: SaqOptions<Queues>,
): SaqConfig<Queues> {
  const names = options.queues.map((queue) => queue.name);
  if (names.length === 0)
    throw new ConfigError("defineSaq: queues is empty; pass at least one defineQueue({...})");
  const duplicate = names.find((name, index) => names.indexOf(name) !== index);
  if (duplicate !== undefined)
    throw new ConfigError(
      `defineSaq: two queues are named "${duplicate}"; give each queue a name of its own`,
    );
  checkCronKeys(options.queues);
  checkRedisNames(options.queues);
  const path = `/${(options.web?.path ?? "/saq").replace(/^\/+|\/+$/g, "")}`;
  if (path === "/")
    throw new ConfigError('defineSaq: web.path must not be the root; use for instance "/saq"');
  const { enabled = false, guards = [] } = options.web ?? {};
  if (enabled && guards.length === 0 && process.env.NODE_ENV === "production") {
    throw new ConfigError(
      "defineSaq: web.enabled needs a guard in production: web: { enabled: true, guards: [yourLoginMiddleware] }",
    );
  }
  return {
    queues: options.queues,
    web: { enabled, path, guards },
    enableOtel: checkEnableOtel("defineSaq", options.enableOtel),
    logger: options.logger,
    useServerLifespan: oneOf("defineSaq", "useServerLifespan", options.useServerLifespan ?? false, [
      true,
      false,
    ]),
    workerProcesses: numberChecks("defineSaq").integer(
      "workerProcesses",
      options.workerProcesses ?? 1,
      1,
      1_000,
    ),
  };
}

/**
 * Refuses two scheduled tasks with one key. Keys are unique over all queues of one set of tables, so one of the two
 * would never run. On Redis each queue has its own keys.
 *
 * @throws ConfigError
 */
function checkCronKeys(queues: readonly QueueConfig[]): void {
  const queueById = new Map<string, string>();
  for (const { name: queue, dsn, tables, scheduledTasks } of queues) {
    if (isRedisAddress(dsn)) continue;
    for (const { name } of scheduledTasks ?? []) {
      const id = JSON.stringify([dsn, tables, name]);
      const other = queueById.get(id);
      if (other !== undefined) {
        throw new ConfigError(
          `defineSaq: queues "${other}" and "${queue}" share a database, and both have a scheduled task named ` +
            `"${name}"; give one of them a name of its own: cronJob("...", { name: "${queue}-${name}", ... })`,
        );
      }
      queueById.set(id, queue);
    }
  }
}

/**
 * Refuses two queues on one Redis whose keys are mixed up. Job `b:k` of queue `a` and job `k` of queue `a:b` both have
 * the key `saq:job:a:b:k`, which Python SAQ fixes, so each queue would read and overwrite jobs of the other. On a
 * cluster the keys differ: `saq:job:{a}:b:k` and `saq:job:{a:b}:k`.
 *
 * @throws ConfigError
 */
function checkRedisNames(queues: readonly QueueConfig[]): void {
  const onRedis = queues
    .filter(({ dsn }) => isRedisAddress(dsn) && !isClusterAddress(dsn))
    .map(({ name, dsn }) => ({ name, server: nameOfRedisAddress(parseRedisAddress(dsn)) }));
  for (const { name, server } of onRedis) {
    const longer = onRedis.find((other) => other.server === server && other.name.startsWith(`${name}:`));
    if (longer === undefined) continue;
    throw new ConfigError(
      `defineSaq: queues "${name}" and "${longer.name}" share a Redis, and their jobs could have the same key, ` +
        `because the second name begins with "${name}:"; rename one of them, for instance to ` +
        `"${longer.name.replaceAll(":", "-")}", or give it another database in its dsn`,
    );
  }
}
