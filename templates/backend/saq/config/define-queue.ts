/** Fills in a queue's defaults and refuses options that cannot work, before any connection is opened. */
import { availableParallelism } from "node:os";
import { defaultMaxBytes, largestMaxBytes } from "../core/byte-size.js";
import { checkZone } from "../core/cron.js";
import type {
  AfterProcessHook,
  AroundProcessHook,
  HooksReturning,
  OneOrMany,
  Prepared,
  ShutdownHook,
  Started,
  TasksFor,
} from "../tasks/hooks.js";
import type { Context, TaskMap, WorkerContext } from "../tasks/task.js";
import {
  checkDsn,
  checkEnableOtel,
  checkName,
  checkOptionNames,
  checkPair,
  checkRedisOptions,
  checkTasks,
  completeBurst,
  listOfHooks,
  maxTimerSeconds,
  numberChecks,
  oneOf,
} from "./checks.js";
import { onlyJobOptions } from "./job-options.js";
import type { QueueConfig, QueueOptions, QueueSettings, Timers } from "./queue-options.js";
import { type CronJob, readScheduledTasks } from "./scheduled-tasks.js";
import { checkTables } from "./tables.js";

const timerDefaults: Timers = { schedule: 1, workerInfo: 3, lost: 2, sweep: 10, abort: 1 };

/**
 * Defines one queue, its tasks and how its workers run them. Returns the checked configuration with all defaults.
 *
 * @throws ConfigError naming the option, the value received and what is allowed
 * @example
 * export const mailQueue = defineQueue({
 *   name: "mail",
 *   dsn: "postgresql://user:password@127.0.0.1:5432/app",
 *   tasks: { sendMail },
 * });
 */
export function defineQueue<
  const Name extends string,
  const Tasks extends TaskMap,
  Present extends keyof QueueOptions,
  Start1 = never,
  Start2 = unknown,
  Start3 = unknown,
  Before1 = never,
  Before2 = unknown,
  Before3 = unknown,
>(
  options: { [Option in Present]?: unknown } & QueueSettings<Name, Tasks> & {
      /** Runs before the worker takes jobs. If it throws, the worker does not start. @defaultValue none */
      startup?: HooksReturning<WorkerContext, Start1, Start2, Start3>;
      /** Runs after the last job has ended. @defaultValue none */
      shutdown?: OneOrMany<ShutdownHook<Started<Present, Start1, Start2, Start3>>>;
      /** Runs before each task, within the job's timeout. If it throws, the attempt fails. @defaultValue none */
      beforeProcess?: HooksReturning<
        Context<Started<Present, Start1, Start2, Start3>>,
        Before1,
        Before2,
        Before3
      >;
      /**
       * Runs around each task, inside of the `beforeProcess` hooks: `(ctx, next) => ...`. The first hook of a list is
       * the outermost one. @defaultValue none
       */
      aroundProcess?: OneOrMany<
        AroundProcessHook<
          Started<Present, Start1, Start2, Start3> & Prepared<Present, Before1, Before2, Before3>
        >
      >;
      /** Runs when the end of an attempt is recorded. @defaultValue none */
      afterProcess?: OneOrMany<
        AfterProcessHook<
          Started<Present, Start1, Start2, Start3>,
          Prepared<Present, Before1, Before2, Before3>
        >
      >;
      tasks: Tasks &
        TasksFor<Started<Present, Start1, Start2, Start3> & Prepared<Present, Before1, Before2, Before3>>;
    },
): QueueConfig<Name, Tasks>;
export function defineQueue(given: object): QueueConfig {
  const options = given as QueueOptions;
  const at = `defineQueue(${JSON.stringify(options.name)})`;
  checkName(at, options.name);
  checkOptionNames(at, options);
  if (checkDsn(at, options.dsn) === "redis") checkRedisOptions(at, options);
  checkTasks(at, options.tasks);
  const { number, integer } = numberChecks(at);
  const [lowest, highest] = checkPair(at, "priorities", options.priorities ?? [0, 32767]);
  integer("priorities[0]", lowest, -32768, 32767);
  integer("priorities[1]", highest, lowest, 32767);
  checkOptionNames(at, options.timers ?? {}, timerDefaults, "timers.");
  const timers = { ...timerDefaults, ...options.timers };
  for (const [name, value] of Object.entries(timers)) number(`timers.${name}`, value, 0.01, maxTimerSeconds);
  const cronTimezone = checkZone(options.cronTimezone ?? "UTC");
  const scheduled = options.scheduledTasks as readonly CronJob[] | undefined;
  const minSize = integer("minSize", options.minSize ?? 1, 0);
  return {
    name: options.name,
    dsn: options.dsn,
    tasks: options.tasks,
    threads: integer("threads", options.threads ?? Math.max(1, availableParallelism() - 1), 1, 1_000),
    minSize,
    maxSize: integer("maxSize", options.maxSize ?? Math.max(3, minSize), Math.max(2, minSize)),
    defaults: onlyJobOptions(`${at}: defaults`, options.defaults ?? {}),
    pollInterval: number("pollInterval", options.pollInterval ?? 0, 0, maxTimerSeconds),
    startTimeout: number("startTimeout", options.startTimeout ?? 60, 0, maxTimerSeconds),
    shutdownGracePeriod: number("shutdownGracePeriod", options.shutdownGracePeriod ?? 10, 0, maxTimerSeconds),
    cancellationHardDeadline: number(
      "cancellationHardDeadline",
      options.cancellationHardDeadline ?? 1,
      0,
      maxTimerSeconds,
    ),
    failedTtl: integer("failedTtl", options.failedTtl ?? 7 * 24 * 3600, 0),
    lostLimit: integer("lostLimit", options.lostLimit ?? 3, 0),
    maxBytes: integer("maxBytes", options.maxBytes ?? defaultMaxBytes, 1_024, largestMaxBytes),
    priorities: [lowest, highest],
    groupConcurrency: integer("groupConcurrency", options.groupConcurrency ?? 1, 1, 10_000),
    tables: checkTables(at, options.tables ?? {}),
    lockKeyspace: integer("lockKeyspace", options.lockKeyspace ?? 0, -(2 ** 31), 2 ** 31 - 1),
    prefetch: oneOf(at, "prefetch", options.prefetch ?? true, [true, false]),
    cronTimezone,
    scheduledTasks: scheduled ? readScheduledTasks(at, scheduled, options.tasks, cronTimezone) : null,
    timers,
    metadata: options.metadata ?? null,
    ...completeBurst(at, options),
    unknownTask: oneOf(at, "unknownTask", options.unknownTask ?? "fail", ["fail", "requeue"]),
    separateProcess: oneOf(at, "separateProcess", options.separateProcess ?? true, [true, false]),
    enableOtel: checkEnableOtel(at, options.enableOtel),
    hookTimeout: number("hookTimeout", options.hookTimeout ?? 10, 0, maxTimerSeconds),
    eventLoopDelay: number("eventLoopDelay", options.eventLoopDelay ?? 0.5, 0, maxTimerSeconds),
    startup: listOfHooks(at, "startup", options.startup),
    shutdown: listOfHooks(at, "shutdown", options.shutdown),
    beforeProcess: listOfHooks(at, "beforeProcess", options.beforeProcess),
    aroundProcess: listOfHooks(at, "aroundProcess", options.aroundProcess),
    afterProcess: listOfHooks(at, "afterProcess", options.afterProcess),
  };
}
