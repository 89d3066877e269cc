/** The whole configuration: every queue and the web UI. */
import type { RequestHandler } from "express";
import { ConfigError } from "../errors.js";
import type { Logger } from "../logger.js";
import type { QueueConfig } from "./queue-options.js";

export interface SaqOptions<Queues extends readonly QueueConfig[]> {
  queues: Queues;
  /** The web UI; off unless enabled. */
  web?: WebOptions;
  logger?: Logger;
}

interface WebOptions {
  enabled: boolean;
  /** @defaultValue "/saq" */
  path?: string;
  /**
   * Who may come in, checked before anything else. Without one the UI answers only at this machine's own addresses,
   * and not at all in production. @defaultValue []
   */
  guards?: readonly RequestHandler[];
}

export interface SaqConfig<Queues extends readonly QueueConfig[] = readonly QueueConfig[]> {
  readonly queues: Queues;
  readonly web: Required<WebOptions>;
  readonly logger: Logger | undefined;
}

/**
 * The whole configuration: every queue and the web UI.
 *
 * @throws ConfigError when there is no queue, two share a name or the key of a scheduled task, or the web UI would stand open in production
 */
export function defineSaq<const Queues extends readonly QueueConfig[]>(
  options: SaqOptions<Queues>,
): SaqConfig<Queues> {
  const names = options.queues.map((queue) => queue.name);
  if (names.length === 0)
    throw new ConfigError("defineSaq: queues is empty; give it one defineQueue({...}) at least");
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined)
    throw new ConfigError(`defineSaq: two queues are named "${twice}"; names must differ`);
  checkCronKeys(options.queues);
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
    logger: options.logger,
  };
}

/** Keys are unique per database (D-14): of two entries with one key, one queue's would never run. */
function checkCronKeys(queues: readonly QueueConfig[]): void {
  const holders = new Map<string, string>();
  for (const { name: queue, dsn, tables, scheduledTasks } of queues) {
    for (const { name } of scheduledTasks ?? []) {
      const id = JSON.stringify([dsn, tables, name]);
      const holder = holders.get(id);
      if (holder !== undefined) {
        throw new ConfigError(
          `defineSaq: queues "${holder}" and "${queue}" share a database, and both have a scheduled task named "${name}"; ` +
            `give one of them a name of its own: cronJob("...", { name: "${queue}-${name}", ... })`,
        );
      }
      holders.set(id, queue);
    }
  }
}
