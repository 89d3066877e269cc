/** The worker processes that start and stop with the server: `useServerLifespan`. */
import { existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { SaqConfig } from "../config/index.js";
import { ConfigError } from "../errors.js";
import type { Logger } from "../logger.js";
import { WorkerProcesses } from "../worker/index.js";
import { defaultModule, workerProgram } from "./program-paths.js";

/** Options of `saq.startServerLifespan`. */
export interface ServerLifespanOptions {
  /**
   * Path or file URL of the module that exports `saq` or `saqConfig`. Each worker process loads it, so it must not
   * start the server. @defaultValue app/queue/index
   */
  module?: string | URL;
  /**
   * The server is restarted on each save: when it gets SIGTERM or is killed, the worker processes give running jobs
   * 1 s, so that an edit is live in about 2 s. @defaultValue false
   */
  reloader?: boolean;
  /**
   * Fires when the server is asked to stop. A worker process that ends after that is not started again. Without it,
   * that is so from the call of `close` on. @defaultValue none
   */
  signal?: AbortSignal;
}

/**
 * Creates the worker processes of a configuration: `workerProcesses` for each queue with a worker of its own. They are
 * not started yet. There are none without `useServerLifespan`.
 *
 * @throws ConfigError if there is no such module
 */
export function createServerProcesses(
  { useServerLifespan, workerProcesses, queues }: SaqConfig,
  { module, reloader }: Pick<ServerLifespanOptions, "module" | "reloader">,
  logger: Logger,
): WorkerProcesses {
  const separate = useServerLifespan ? queues.filter(({ separateProcess }) => separateProcess) : [];
  const processes = separate.flatMap(({ name }) =>
    Array.from({ length: workerProcesses }, (_, index) => ({
      name: `worker-${name}-${index + 1}`,
      queues: [name],
    })),
  );
  const file = pathOf(module);
  if (processes.length > 0 && !existsSync(file)) {
    throw new ConfigError(
      `useServerLifespan: each worker process loads the module that exports \`saq\` or \`saqConfig\`, but there is ` +
        `no file ${file}. Pass its path: saq.startServerLifespan({ module: import.meta.resolve("./queues.js") })`,
    );
  }
  return new WorkerProcesses({
    processes,
    program: workerProgram,
    module: file,
    queues: separate,
    reloader,
    logger,
  });
}

/** Returns the absolute path of a module, of which a process in another folder would not know where it lies. */
function pathOf(module: string | URL | undefined): string {
  if (module === undefined) return defaultModule;
  return String(module).startsWith("file:") ? fileURLToPath(module) : path.resolve(String(module));
}
