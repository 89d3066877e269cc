/** What people write about one queue, and what `defineQueue` makes of it. */

import type { JobOptions } from "../job.js";
import type { HookOptions, Hooks } from "../tasks/hooks.js";
import type { TaskMap } from "../tasks/task.js";
import type { CronEntry, ScheduledTasks } from "./scheduled-tasks.js";

/** Everything about a queue. `defineQueue` checks the hooks' types against the tasks. */
export interface QueueOptions<Name extends string = string, Tasks extends TaskMap = TaskMap>
  extends QueueSettings<Name, Tasks>,
    HookOptions {}

/** Everything about a queue but its hooks. */
export interface QueueSettings<Name extends string = string, Tasks extends TaskMap = TaskMap> {
  /** At most 59 bytes, so that its notification channel `saq:NAME` fits PostgreSQL's 63 (D-18). */
  name: Name;
  /** Where the queue's tables live: `postgresql://user:password@host:port/database`. */
  dsn: string;
  /** Tasks by the name that is stored with each job. */
  tasks: Tasks;
  /** Jobs that one worker runs at a time. @defaultValue 10 */
  concurrency?: number;
  /**
   * Threads of one worker for tasks with `thread`: each runs one job at a time, and is made when it is needed. Jobs that
   * find none free hold slots while they wait for one: where such jobs are many, give them a queue of their own.
   * @defaultValue one less than the processor has cores, 1 at least
   */
  threads?: number;
  /** Connections that one process keeps open to this server. @defaultValue 1 */
  minSize?: number;
  /**
   * Maximum of connections of one process to this server, its LISTEN connection included; 2 at least. When a statement
   * has had no answer for 2 s, one more is opened for a moment, to ask the server about it. @defaultValue 3
   */
  maxSize?: number;
  /** Defaults of this queue's jobs; a task's own and those given to `enqueue` come before them. */
  defaults?: JobOptions;
  /**
   * > 0: no LISTEN and no session state; a worker asks for jobs every so many seconds. For transaction poolers such as
   * PgBouncer. Only its row says that a worker lives then: its jobs run again 30 s after the last renewal of the row,
   * and the worker ends them itself when it could not renew its row for 24 s. @defaultValue 0 s
   */
  pollInterval?: number;
  /**
   * How long the start of a worker waits for a database that is away, s; it tries again after 0.1 s, doubling to 2 s.
   * 0 = it fails at once. @defaultValue 60
   */
  startTimeout?: number;
  /** How long running jobs may go on after a stop was asked for, s. @defaultValue 10 */
  shutdownGracePeriod?: number;
  /** How long a job has to end once its signal fired, s. @defaultValue 1 */
  cancellationHardDeadline?: number;
  /**
   * How long an `afterProcess` or shutdown hook may take, s. After that an error is logged and the worker no longer
   * waits for the hook. A startup hook that takes longer is logged and waited for. 0 = no limit. @defaultValue 10
   */
  hookTimeout?: number;
  /** Least time a failed job is kept, s (D-83). @defaultValue 604800 (7 days) */
  failedTtl?: number;
  /**
   * How many further runs a job gets whose worker died while the job ran, also by an uncaught error; then it fails.
   * From its second loss on it runs alone: no other job runs in its process. @defaultValue 3
   */
  lostLimit?: number;
  /**
   * Maximum size of payload, result, error and meta of a job, each, in bytes of its JSON as UTF-8: 1,024 to 50,331,648
   * (48 MiB). A larger payload or meta is refused, a larger result fails its job. Python has no such limit: a job whose
   * whole document has more than four times `maxBytes` is set aside as failed without being read.
   *
   * @defaultValue 16777216 (16 MiB)
   */
  maxBytes?: number;
  /** Lowest and highest priority that this queue's workers take, both included. @defaultValue [0, 32767] */
  priorities?: readonly [number, number];
  /**
   * Jobs of one `groupKey` that may run at a time, over all workers. Python workers on the same queue keep to one as
   * well as they can. @defaultValue 1
   */
  groupConcurrency?: number;
  /** Claim jobs ahead of free slots while jobs are short, so that no slot waits for the database. @defaultValue true */
  prefetch?: boolean;
  /**
   * Tables other than SAQ's `saq_jobs`, `saq_stats` and `saq_versions`, in a schema other than the first of the
   * connection's search path. Whoever names tables of his own names all that differ, `versions` among them (D-12):
   * `{ jobs: "mail_jobs", stats: "mail_stats", versions: "mail_versions" }`.
   */
  tables?: Partial<Tables>;
  /**
   * First key of the advisory lock `(lockKeyspace, 0)` under which missing tables are made: Python's
   * `saq_lock_keyspace`. Set it only where Python sets that.
   *
   * @defaultValue 0
   */
  lockKeyspace?: number;
  /**
   * Recurring tasks, each made by `cronJob`. The list is the whole list: what waits of entries that are no longer in it
   * is taken back. Left out, this process schedules nothing and takes nothing back.
   */
  scheduledTasks?: ScheduledTasks<NoInfer<Tasks>>;
  /** IANA name. @defaultValue "UTC" */
  cronTimezone?: string;
  /** Upkeep intervals, s. */
  timers?: Partial<Timers>;
  /** Shown with the worker in `info` and the web UI. */
  metadata?: Record<string, unknown>;
  /** Work off what is there, then stop: the worker ends by itself (W-18). Needs `dequeueTimeout`. @defaultValue false */
  burst?: boolean;
  /** How long a burst waits for another job before it is over, s. @defaultValue 0 */
  dequeueTimeout?: number;
  /** Most jobs of one burst; `concurrency` is lowered to it. @defaultValue no limit */
  maxBurstJobs?: number;
  /**
   * What happens to a job whose task this worker does not have, as during a deployment: it fails, or it is given back
   * for other workers, 5 s apart and 60 times at most (D-41). @defaultValue "fail"
   */
  unknownTask?: "fail" | "requeue";
  /**
   * False: `saq.startInProcessWorkers()` starts this queue's worker, in the web process, and `runWorkers` leaves it
   * out. @defaultValue true
   */
  separateProcess?: boolean;
  /** Warn when the event loop stood still for that long, s; 0 = never (W-13). @defaultValue 0.5 */
  eventLoopDelay?: number;
}

/** Names as they are, without quotes: at most 40 bytes each, so that the names of indexes fit behind them. */
export interface Tables {
  /** Null: where the tables are found on the search path, else its first schema. */
  schema: string | null;
  jobs: string;
  stats: string;
  versions: string;
}

/** Seconds. */
export interface Timers {
  /**
   * Jobs that become due, and what nobody was told of; fires just after each whole second. While nothing waits and
   * nothing runs, and push works, most of them are left out: the look then is every 5 s. @defaultValue 1
   */
  schedule: number;
  /** A worker's sign of life; its row lives three of them. @defaultValue 3 */
  workerInfo: number;
  /** Look for dead workers; left out when a sign of life has just told as much. @defaultValue 2 */
  lost: number;
  /** Look for stuck and expired jobs. @defaultValue 10 */
  sweep: number;
  /** Look whether running jobs are to be aborted. @defaultValue 1 */
  abort: number;
}

export type QueueConfig<Name extends string = string, Tasks extends TaskMap = TaskMap> = Required<
  Omit<QueueSettings<Name, Tasks>, "scheduledTasks" | "timers" | "tables" | "metadata" | "maxBurstJobs">
> &
  Hooks & {
    timers: Timers;
    tables: Tables;
    metadata: Record<string, unknown> | null;
    maxBurstJobs: number | null;
    scheduledTasks: readonly CronEntry[] | null;
  };
