/** Recurring tasks: `cronJob` makes an entry, and `defineQueue` checks and completes it. */
import { Cron } from "../core/cron.js";
import type { JobOptions } from "../core/job.js";
import { ConfigError } from "../errors.js";
import type { PayloadOf, TaskMap } from "../tasks/task.js";
import { onlyJobOptions } from "./job-options.js";

/** Options of one recurring task. Timeout, retries, ttl and the like apply to each run and override the task's own. */
export interface CronOptions extends JobOptions {
  /**
   * `minute hour day month weekday`; with six fields, the seconds are the **last**. `0 3 * * *` is every day at three,
   * `* * * * * 0/15` every 15 s. Names, lists, ranges, steps, `L`, `5#2`, `L5`, and `@daily` and the like are allowed.
   */
  cron: string;
  /** Time zone, an IANA name. @defaultValue the queue's `cronTimezone` */
  timezone?: string;
  /** Distinguishes two entries of one task. @defaultValue the task's name */
  name?: string;
  /**
   * What happens at a tick while the previous run goes on. `skip`: the tick is left out. `allow`: both run at once,
   * each with a key of its own (SAQ's `unique=False`). @defaultValue "skip"
   */
  overlap?: "skip" | "allow";
  /**
   * What happens to ticks that passed while no worker ran. The one tick that waits in the queue runs late in any case,
   * as in SAQ. `skip`: all others are left out. `once`: there is one run at the next start if any tick was missed.
   * @defaultValue "skip"
   */
  misfire?: "skip" | "once";
  /** `meta` of each run. The engine adds `schedule`, the name of the entry. @defaultValue {} */
  meta?: Record<string, unknown>;
}

/** A recurring task that is not yet checked against the tasks of a queue. Made by `cronJob`. */
export interface CronJob<Task extends string = string, Payload = unknown> {
  readonly task: Task;
  readonly payload: Payload;
  readonly options: CronOptions;
}

/** The type of `scheduledTasks` for a queue with these tasks: it allows only their names, with their payloads. */
export type ScheduledTasks<Tasks extends TaskMap> = readonly {
  [Name in keyof Tasks & string]: CronJob<Name, GivenPayload<PayloadOf<Tasks[Name]>>>;
}[keyof Tasks & string][];
type GivenPayload<P> = [P] extends [never] ? unknown : Record<never, never> extends P ? P | undefined : P;

/** The type of a constant without its `readonly`. */
type Written<T> = T extends object ? { -readonly [Name in keyof T]: Written<T[Name]> } : T;

/**
 * Defines a recurring task: one run per tick, however many workers there are. Returns an entry for `scheduledTasks`.
 * `payload` is given to each run, and is required if the task needs one. `defineQueue` checks the other options.
 *
 * @throws ConfigError `Cron is invalid ...` with what is wrong and what is allowed, or for an unknown time zone
 * @example
 * cronJob("cleanUp", { cron: "0 3 * * *", payload: { days: 30 } })
 */
export function cronJob<const Task extends string>(
  task: Task,
  options: CronOptions & { payload?: undefined },
): CronJob<Task, undefined>;
/** The same for a task with a payload. */
export function cronJob<const Task extends string, const Payload extends object>(
  task: Task,
  options: CronOptions & { payload: Payload },
): CronJob<Task, Written<Payload>>;
export function cronJob(task: string, { payload, ...options }: CronOptions & { payload?: unknown }): CronJob {
  // Read here so that the error points at the line that is wrong; `defineQueue` reads it again with its time zone.
  new Cron(options.cron, options.timezone ?? "UTC");
  return { task, payload, options };
}

/** One entry, checked and complete. */
export interface CronEntry {
  /** Unique in its queue. */
  readonly name: string;
  readonly task: string;
  readonly cron: Cron;
  readonly payload: unknown;
  readonly overlap: "skip" | "allow";
  readonly misfire: "skip" | "once";
  readonly options: JobOptions;
  readonly meta: Record<string, unknown>;
}

/** Returns the key of a run. `tick` is in epoch s. */
export const cronKey = ({ name, overlap }: Pick<CronEntry, "name" | "overlap">, tick: number): string =>
  overlap === "allow" ? `cron:${name}:${tick}` : `cron:${name}`;

/**
 * Checks and completes the entries of `scheduledTasks`.
 *
 * @throws ConfigError naming the entry, the value received and what is allowed
 */
export function readScheduledTasks(
  at: string,
  jobs: readonly CronJob[],
  tasks: TaskMap,
  timezone: string,
): readonly CronEntry[] {
  if (!Array.isArray(jobs)) {
    throw new ConfigError(`${at}: scheduledTasks must be a list of cronJob(...), got ${typeof jobs}`);
  }
  const entries = jobs.map((job) => readEntry(at, job, tasks, timezone));
  const names = entries.map((entry) => entry.name);
  const duplicate = names.find((name, index) => names.indexOf(name) !== index);
  if (duplicate !== undefined) {
    throw new ConfigError(
      `${at}: two scheduled tasks are named "${duplicate}", so only one of them would run; ` +
        `give one of them a name of its own: cronJob("...", { name: "${duplicate}2", ... })`,
    );
  }
  return entries;
}

function readEntry(at: string, job: CronJob, tasks: TaskMap, timezone: string): CronEntry {
  if (typeof job?.task !== "string" || typeof job.options !== "object") {
    throw new ConfigError(
      `${at}: scheduledTasks takes cronJob("task", { cron: "0 3 * * *" }), got ${typeof job}`,
    );
  }
  const { cron, name = job.task, overlap = "skip", misfire = "skip", meta = {}, ...rest } = job.options;
  const { timezone: own = timezone, ...options } = rest;
  const here = `${at}: cronJob("${name}")`;
  if (!Object.hasOwn(tasks, job.task)) {
    const known = Object.keys(tasks).join(", ");
    throw new ConfigError(
      `${at}: cronJob("${job.task}") names a task that is not in tasks (known: ${known})`,
    );
  }
  if (typeof name !== "string" || name === "" || name.length > 200 || name.includes("\0")) {
    throw new ConfigError(`${here}: name must be a text of 1 to 200 characters`);
  }
  if (overlap !== "skip" && overlap !== "allow") {
    throw new ConfigError(`${here}: overlap must be "skip" or "allow", got ${JSON.stringify(overlap)}`);
  }
  if (misfire !== "skip" && misfire !== "once") {
    throw new ConfigError(`${here}: misfire must be "skip" or "once", got ${JSON.stringify(misfire)}`);
  }
  if ("unique" in options) {
    throw new ConfigError(`${here}: there is no option unique; use overlap: "allow" for SAQ's unique=False`);
  }
  return {
    name,
    task: job.task,
    cron: new Cron(cron, own),
    payload: job.payload,
    overlap,
    misfire,
    options: onlyJobOptions(here, options, ConfigError, [
      "cron",
      "name",
      "timezone",
      "overlap",
      "misfire",
      "meta",
    ]),
    meta,
  };
}
