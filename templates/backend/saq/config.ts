/**
 * The configuration that people write: `defineQueue` and `defineSaq` fill in defaults and refuse what cannot work,
 * with the value received and what is allowed, before anything connects.
 */
import type { RequestHandler } from "express";
import { ConfigError } from "./errors.js";
import type { JobOptions } from "./job.js";
import type { Logger } from "./logger.js";
import type { AnyTask, TaskMap } from "./task.js";

export interface QueueOptions<Name extends string = string, Tasks extends TaskMap = TaskMap> {
  /** At most 59 bytes, so that its notification channel `saq:NAME` fits PostgreSQL's 63 (D-18). */
  name: Name;
  /** Where the queue's tables live: `postgresql://user:password@host:port/database`. */
  dsn: string;
  /** Tasks by the name that is stored with each job. */
  tasks: Tasks;
  /** Jobs that one worker runs at a time. @defaultValue 10 */
  concurrency?: number;
  /** Connections that one process keeps open to this server. @defaultValue 1 */
  minSize?: number;
  /** Most connections of one process to this server, its LISTEN connection included (2 at least). @defaultValue 3 */
  maxSize?: number;
  /** Defaults of this queue's jobs; a task's own and those given to `enqueue` come before them. */
  defaults?: JobOptions;
  /**
   * > 0: no LISTEN and no session state; a worker asks every so many seconds. For transaction poolers such as
   * PgBouncer. @defaultValue 0 s
   */
  pollInterval?: number;
  /** How long running jobs may go on after a stop was asked for, s. @defaultValue 10 */
  shutdownGracePeriod?: number;
  /** How long a job has to end once its signal fired, s. @defaultValue 1 */
  cancellationHardDeadline?: number;
  /** Least time a failed job is kept, s (D-83). @defaultValue 604800 (7 days) */
  failedTtl?: number;
  /** How often a job whose worker died is given another run before it fails. @defaultValue 3 */
  lostLimit?: number;
  /** Lowest and highest priority that this queue's workers take, both included. @defaultValue [0, 32767] */
  priorities?: readonly [number, number];
  /** Claim jobs ahead of free slots while jobs are short, so that no slot waits for the database. @defaultValue true */
  prefetch?: boolean;
  /** Upkeep intervals, s. */
  timers?: Partial<Timers>;
  /** Shown with the worker in `info` and the web UI. */
  metadata?: Record<string, unknown>;
}

/** Seconds. */
interface Timers {
  /** Safety net for due jobs and missed notifications; fires just after each whole second. @defaultValue 1 */
  schedule: number;
  /** A worker's sign of life; its row lives three of them. @defaultValue 3 */
  workerInfo: number;
  /** Look for dead workers. @defaultValue 2 */
  lost: number;
  /** Look for stuck and expired jobs. @defaultValue 10 */
  sweep: number;
  /** Look whether running jobs are to be aborted. @defaultValue 1 */
  abort: number;
}

export type QueueConfig<Name extends string = string, Tasks extends TaskMap = TaskMap> = Required<
  Omit<QueueOptions<Name, Tasks>, "timers" | "metadata">
> & { timers: Timers; metadata: Record<string, unknown> | null };

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

/** Node's timers hold 31 bits of milliseconds and fire at once beyond: 24 days, in s. */
const longestTimer = 2_147_483;

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
  if (typeof options.name !== "string" || options.name === "" || options.name.includes("\0")) {
    throw new ConfigError(`${at}: name must be a text of 1 to 59 bytes, for instance "default"`);
  }
  const bytes = Buffer.byteLength(options.name);
  if (bytes > 59)
    throw new ConfigError(`${at}: name has ${bytes} bytes, 59 are allowed; choose a shorter one`);
  checkDsn(at, options.dsn);
  checkTasks(at, options.tasks);
  const number = (name: string, value: number, min: number, max = Number.MAX_SAFE_INTEGER) => {
    if (typeof value !== "number" || !(value >= min && value <= max)) {
      const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`;
      throw new ConfigError(`${at}: ${name} must be a number of ${range}, got ${String(value)}`);
    }
    return value;
  };
  const integer = (name: string, value: number, min: number, max?: number) => {
    if (!Number.isInteger(value))
      throw new ConfigError(`${at}: ${name} must be a whole number, got ${String(value)}`);
    return number(name, value, min, max);
  };
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
    prefetch: options.prefetch ?? true,
    timers,
    metadata: options.metadata ?? null,
  };
}

/** Never repeats the DSN, nor keeps an error that does: it holds a password. */
function checkDsn(at: string, dsn: string): void {
  const example = "for instance postgresql://user:password@127.0.0.1:5432/app";
  if (typeof dsn !== "string" || dsn === "") {
    throw new ConfigError(`${at}: dsn is missing; set DATABASE_URL or QUEUE_DSN, ${example}`);
  }
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(dsn)?.[1]?.toLowerCase();
  if (scheme !== "postgresql" && scheme !== "postgres") {
    const got = scheme ? `it begins with ${scheme}://` : "it has no scheme";
    throw new ConfigError(`${at}: dsn must begin with postgresql:// or postgres://, but ${got}; ${example}`);
  }
  if (!URL.canParse(dsn)) {
    throw new ConfigError(
      `${at}: dsn cannot be read as an address; percent-encode special characters in its password (# is %23, / is %2F), ${example}`,
    );
  }
}

function checkTasks(at: string, tasks: TaskMap): void {
  if (typeof tasks !== "object" || tasks === null) {
    throw new ConfigError(`${at}: tasks must be an object of tasks by name, got ${String(tasks)}`);
  }
  for (const [name, given] of Object.entries(tasks)) {
    if (typeof given === "function") continue;
    if (typeof given !== "object" || given === null || typeof given.run !== "function") {
      throw new ConfigError(`${at}: task "${name}" must be a function or task({ run }), got ${typeof given}`);
    }
    checkJobOptions(`${at}: task "${name}"`, given);
  }
}

const jobOptionNames: ReadonlySet<string> = new Set([
  "timeout",
  "heartbeat",
  "retries",
  "ttl",
  "retryDelay",
  "retryBackoff",
] satisfies (keyof JobOptions)[]);

/**
 * As `checkJobOptions`, and refuses any other name: a typo would be ignored without a word, and `status` or `attempts`
 * out of a spread request body would become the job's own (D-61).
 */
export function onlyJobOptions<O extends JobOptions>(
  at: string,
  options: O,
  Failure: new (message: string) => Error = ConfigError,
): O {
  const unknown = Object.keys(options).find((name) => !jobOptionNames.has(name));
  if (unknown === undefined) return checkJobOptions(at, options, Failure);
  throw new Failure(`${at}: there is no option "${unknown}" (known: ${[...jobOptionNames].join(", ")})`);
}

/** Refuses a duration or count out of its range with the given error. Units: s. */
function checkJobOptions<O extends JobOptions>(
  at: string,
  options: O,
  Failure: new (message: string) => Error = ConfigError,
): O {
  const check = (name: keyof JobOptions, ok: (value: number) => boolean, allowed: string) => {
    const value = options[name];
    if (value === undefined || (name === "timeout" && value === null)) return;
    if (name === "retryBackoff" && typeof value === "boolean") return;
    if (typeof value !== "number" || !Number.isFinite(value) || !ok(value)) {
      throw new Failure(`${at}: ${name} must be ${allowed}, got ${String(value)}`);
    }
  };
  check("timeout", (value) => value >= 0, "null or seconds >= 0 (0 and null: no limit)");
  check("heartbeat", (value) => value >= 0, "seconds >= 0 (0: off)");
  check(
    "retries",
    (value) => Number.isInteger(value) && value >= 0,
    "a whole number >= 0 of attempts in all",
  );
  check("ttl", Number.isSafeInteger, "whole seconds (0: keep for ever, -1: delete at once)");
  check("retryDelay", (value) => value >= 0, "seconds >= 0");
  check("retryBackoff", (value) => value >= 0, "true, false or a cap in seconds");
  return options;
}

/**
 * The whole configuration: every queue and the web UI.
 *
 * @throws ConfigError when there is no queue, two share a name, or the web UI would stand open in production
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

/** Looks up a task by its stored name; own properties only, so that a job named "constructor" finds nothing. */
export const findTask = (tasks: TaskMap, name: string): AnyTask | undefined =>
  Object.hasOwn(tasks, name) ? tasks[name] : undefined;
