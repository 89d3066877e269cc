/** Fills in a queue's defaults and refuses what cannot work, before anything connects. */
import { availableParallelism } from "node:os";
import type { TaskMap } from "../task.js";
import { checkDsn, checkName, checkTasks, longestTimer, numberChecks } from "./checks.js";
import { onlyJobOptions } from "./job-options.js";
import type { QueueConfig, QueueOptions, Timers } from "./queue-options.js";
import { checkTables } from "./tables.js";

const timerDefaults: Timers = { schedule: 1, workerInfo: 3, lost: 2, sweep: 10, abort: 1 };

/**
 * One queue, its tasks and how its workers run them.
 *
 * @throws ConfigError naming the option, the value received and what is allowed
 */
export function defineQueue<const Name extends string, const Tasks extends TaskMap>(
  options: QueueOptions<Name, Tasks>,
): QueueConfig<Name, Tasks> {
  const at = `defineQueue(${JSON.stringify(options.name)})`;
  checkName(at, options.name);
  checkDsn(at, options.dsn);
  checkTasks(at, options.tasks);
  const { number, integer } = numberChecks(at);
  const [lowest, highest] = options.priorities ?? [0, 32767];
  integer("priorities[0]", lowest, -32768, 32767);
  integer("priorities[1]", highest, lowest, 32767);
  const timers = { ...timerDefaults, ...options.timers };
  for (const [name, value] of Object.entries(timers)) number(`timers.${name}`, value, 0.01, longestTimer);
  const minSize = integer("minSize", options.minSize ?? 1, 0);
  return {
    name: options.name,
    dsn: options.dsn,
    tasks: options.tasks,
    concurrency: integer("concurrency", options.concurrency ?? 10, 1, 10_000),
    threads: integer("threads", options.threads ?? Math.max(1, availableParallelism() - 1), 1, 1_000),
    minSize,
    maxSize: integer("maxSize", options.maxSize ?? Math.max(3, minSize), Math.max(2, minSize)),
    defaults: onlyJobOptions(`${at}: defaults`, options.defaults ?? {}),
    pollInterval: number("pollInterval", options.pollInterval ?? 0, 0, longestTimer),
    shutdownGracePeriod: number("shutdownGracePeriod", options.shutdownGracePeriod ?? 10, 0, longestTimer),
    cancellationHardDeadline: number(
      "cancellationHardDeadline",
      options.cancellationHardDeadline ?? 1,
      0,
      longestTimer,
    ),
    failedTtl: integer("failedTtl", options.failedTtl ?? 7 * 24 * 3600, 0),
    lostLimit: integer("lostLimit", options.lostLimit ?? 3, 0),
    priorities: [lowest, highest],
    groupConcurrency: integer("groupConcurrency", options.groupConcurrency ?? 1, 1, 10_000),
    tables: checkTables(at, options.tables ?? {}),
    lockKeyspace: integer("lockKeyspace", options.lockKeyspace ?? 0, -(2 ** 31), 2 ** 31 - 1),
    prefetch: options.prefetch ?? true,
    timers,
    metadata: options.metadata ?? null,
  };
}
