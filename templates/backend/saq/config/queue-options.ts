/** The options of one queue, and the configuration that `defineQueue` makes of them. */

import type { JobOptions } from "../core/job.js";
import type { HookOptions, Hooks } from "../tasks/hooks.js";
import type { TaskMap } from "../tasks/task.js";
import type { CronEntry, ScheduledTasks } from "./scheduled-tasks.js";

/** All options of a queue. `defineQueue` checks the hooks' types against the tasks. */
export interface QueueOptions<Name extends string = string, Tasks extends TaskMap = TaskMap>
  extends QueueSettings<Name, Tasks>,
    HookOptions {}

/** All options of a queue except its hooks. */
export interface QueueSettings<Name extends string = string, Tasks extends TaskMap = TaskMap> {
  /** Name of the queue: at most 59 bytes, so that its notification channel `saq:NAME` fits into PostgreSQL's 63. */
  name: Name;
  /**
   * Address of the database with the queue's tables, `postgresql://user:password@host:port/database`, or of a Redis
   * server, `redis://:password@host:port/0`.
   */
  dsn: string;
  /** Tasks by the name that is stored with each job. */
  tasks: Tasks;
  /** Maximum number of jobs that one worker runs at a time. @defaultValue 10 */
  concurrency?: number;
  /**
   * Maximum number of threads of one worker, for tasks with `thread`. A thread is made when it is needed and runs one
   * job at a time. A job that waits for a free thread holds a slot: if there are many such jobs, give them a queue of
   * their own.
   * @defaultValue the number of available cores minus one, at least 1
   */
  threads?: number;
  /**
   * Minimum number of connections that one process keeps open to this server. It has no effect on Redis.
   * @defaultValue 1
   */
  minSize?: number;
  /**
   * Maximum number of connections of one process to this server, including its LISTEN connection; at least 2. When a
   * statement has had no answer for 2 s, one more connection is opened for a moment, to ask the server about it. It
   * has no effect on Redis.
   * @defaultValue 3, or `minSize` if that is more
   */
  maxSize?: number;
  /**
   * Default options of this queue's jobs. Options of the task and options given to `enqueue` override them.
   * @defaultValue the defaults of JobOptions
   */
  defaults?: JobOptions;
  /**
   * 0: workers use LISTEN. More than 0: workers look for jobs at this interval, s, without LISTEN and without session
   * state, as transaction poolers such as PgBouncer require. Then only a worker's row shows that it is alive: its jobs
   * run again 30 s after the last renewal of the row, and the worker ends them itself if it could not renew its row for
   * 24 s. It has no effect on Redis. @defaultValue 0
   */
  pollInterval?: number;
  /**
   * How long the start of a worker waits for a database that is unreachable, s. It retries after 0.1 s, doubled up to
   * 2 s. 0 = it fails at once. @defaultValue 60
   */
  startTimeout?: number;
  /** How long running jobs may go on after a stop was requested, s. @defaultValue 10 */
  shutdownGracePeriod?: number;
  /** How long a task may go on after its signal fired, s. @defaultValue 1 */
  cancellationHardDeadline?: number;
  /**
   * Timeout of an `afterProcess` or shutdown hook, and of an `aroundProcess` hook after its task has ended, s. After
   * that an error is logged and the worker no longer waits for the hook. A startup hook that takes longer is logged and
   * waited for. 0 = no limit. @defaultValue 10
   */
  hookTimeout?: number;
  /**
   * Minimum time that a failed job is kept, s. A job with a negative `ttl` is deleted at once all the same.
   * @defaultValue 604800 (7 days)
   */
  failedTtl?: number;
  /**
   * How often a job is run again after its worker died while the job ran, also by an uncaught error. After that it
   * fails. From its second loss on (from the first one if `lostLimit` is 1), the job runs alone: no other job runs in
   * its process. @defaultValue 3
   */
  lostLimit?: number;
  /**
   * Maximum size of each of a job's payload, result, error and meta, in bytes of its JSON as UTF-8: 1,024 to 50,331,648
   * (48 MiB). A larger payload or meta is refused; a larger result fails its job. Python has no such limit: a job whose
   * whole document has more than four times `maxBytes` is set aside as failed without being read.
   *
   * @defaultValue 16777216 (16 MiB)
   */
  maxBytes?: number;
  /**
   * Lowest and highest `priority` of the jobs that this queue's workers take, both included. Refused on Redis.
   * @defaultValue [0, 32767]
   */
  priorities?: readonly [number, number];
  /**
   * Maximum number of jobs with one `groupKey` that run at a time, over all workers. Python workers on the same queue
   * keep to one as well as they can. Refused on Redis. @defaultValue 1
   */
  groupConcurrency?: number;
  /**
   * Claim jobs before slots are free, as long as jobs are short, so that no slot waits for the database.
   * @defaultValue true
   */
  prefetch?: boolean;
  /**
   * Tables with names other than SAQ's `saq_jobs`, `saq_stats` and `saq_versions`, or in a schema other than the first
   * of the connection's search path. With another `jobs` or `stats` table, another `versions` table is needed too:
   * `{ jobs: "mail_jobs", stats: "mail_stats", versions: "mail_versions" }`. It has no effect on Redis.
   *
   * @defaultValue SAQ's tables
   */
  tables?: Partial<Tables>;
  /**
   * First key of the advisory lock `(lockKeyspace, 0)` under which missing tables are made: Python's
   * `saq_lock_keyspace`. Set it only if Python sets that. It has no effect on Redis.
   *
   * @defaultValue 0
   */
  lockKeyspace?: number;
  /**
   * Recurring tasks, each made by `cronJob`. The list must be complete: waiting ticks of entries that are not in it are
   * deleted. Without this option the process schedules nothing and deletes nothing.
   *
   * @defaultValue none
   */
  scheduledTasks?: ScheduledTasks<NoInfer<Tasks>>;
  /** Time zone of the recurring tasks, an IANA name. @defaultValue "UTC" */
  cronTimezone?: string;
  /** Intervals of the worker's periodic tasks, s. @defaultValue those of Timers */
  timers?: Partial<Timers>;
  /**
   * Your own data about this queue's workers. `queue.info()`, `queue.workers()` and the JSON API of the web UI return
   * it with each worker, and tasks read it as `ctx.worker.metadata`. The pages of the web UI do not show it.
   * @defaultValue none
   */
  metadata?: Record<string, unknown>;
  /** Run the jobs that are there, then stop: the worker ends by itself. Needs `dequeueTimeout`. @defaultValue false */
  burst?: boolean;
  /** How long a burst waits for another job before it ends, s. @defaultValue 0 */
  dequeueTimeout?: number;
  /** Maximum number of jobs of one burst; it lowers `concurrency`. @defaultValue no limit */
  maxBurstJobs?: number;
  /**
   * What happens to a job whose task this worker does not have, as during a deployment. `fail`: the attempt fails.
   * `requeue`: the job is given back for other workers, every 5 s and 60 times at most. @defaultValue "fail"
   */
  unknownTask?: "fail" | "requeue";
  /**
   * False: `saq.startServerLifespan()` starts this queue's worker in the web process, and `runWorkers` leaves the queue
   * out unless its `queues` option names it. @defaultValue true
   */
  separateProcess?: boolean;
  /**
   * Spans and metrics of OpenTelemetry, see `docs/telemetry.md`. True: always; this needs the package
   * `@opentelemetry/api`. False: never. Undefined: if the package is installed and the program has registered a
   * provider of OpenTelemetry before the queue connects.
   * @defaultValue `enableOtel` of `defineSaq`
   */
  enableOtel?: boolean;
  /** Log a warning when the event loop was blocked for this long, s; 0 = never. @defaultValue 0.5 */
  eventLoopDelay?: number;
}

/**
 * Names without quotes. A table's name has at most 40 bytes, so that the names derived from it, such as those of
 * indexes, fit into PostgreSQL's limit.
 */
export interface Tables {
  /**
   * Null: the schema of the search path in which the tables are found, else its first schema.
   * @defaultValue null
   */
  schema: string | null;
  /** @defaultValue "saq_jobs" */
  jobs: string;
  /** @defaultValue "saq_stats" */
  stats: string;
  /** @defaultValue "saq_versions" */
  versions: string;
}

/** Intervals of a worker's periodic tasks, s. */
export interface Timers {
  /**
   * Look for due jobs just after each whole second, also for jobs that sent no notification, and store ticks of
   * recurring tasks. While no job waits or runs and notifications work, the looks for jobs are 5 s apart.
   * @defaultValue 1
   */
  schedule: number;
  /** Renew the worker's row, its sign of life. The row is valid for three of these intervals. @defaultValue 3 */
  workerInfo: number;
  /**
   * Look for dead workers. Skipped if the last renewal of the worker's row has shown that there are none.
   * @defaultValue 2
   */
  lost: number;
  /** Look for stuck and expired jobs. @defaultValue 10 */
  sweep: number;
  /** Look for running jobs that must end, for instance because they were aborted. @defaultValue 1 */
  abort: number;
}

/** The configuration of a queue, as `defineQueue` returns it: checked, with all defaults. */
export type QueueConfig<Name extends string = string, Tasks extends TaskMap = TaskMap> = Required<
  Omit<
    QueueSettings<Name, Tasks>,
    "scheduledTasks" | "timers" | "tables" | "metadata" | "maxBurstJobs" | "enableOtel"
  >
> &
  Hooks & {
    timers: Timers;
    tables: Tables;
    metadata: Record<string, unknown> | null;
    maxBurstJobs: number | null;
    /** Null: as `defineSaq` says, else if a provider is registered. */
    enableOtel: boolean | null;
    scheduledTasks: readonly CronEntry[] | null;
  };
