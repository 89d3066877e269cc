/** Recurring tasks: what people write with `cronJob`, and what `defineQueue` makes of it. */
import { Cron } from "../cron.js";
import { ConfigError } from "../errors.js";
import type { JobOptions } from "../job.js";
import type { PayloadOf, TaskMap } from "../tasks/task.js";
import { onlyJobOptions } from "./job-options.js";

/** One recurring task. Timeout, retries, ttl and the like are those of each run; the task's own come after them. */
export interface CronOptions extends JobOptions {
  /**
   * `minute hour day month weekday`, and seconds **last** when there are six: `0 3 * * *` is every day at three,
   * `* * * * * 0/15` every 15 s. Names, lists, ranges, steps, `L`, `5#2`, `L5` and `@daily` and its like are known (C-1).
   */
  cron: string;
  /** IANA name. @defaultValue the queue's `cronTimezone` */
  timezone?: string;
  /** Tells entries of one task apart (D-56). @defaultValue the task's name */
  name?: string;
  /**
   * What happens at a tick while the last run goes on: `skip` leaves it out; `allow` runs both at once, each under a key
   * of its own (SAQ's `unique=False`, D-55). @defaultValue "skip"
   */
  overlap?: "skip" | "allow";
  /**
   * A tick that passed while no worker was up. The one tick that waits in the queue runs late in any case, as in SAQ;
   * others are left out with `skip`. With `once` there is one run at the next start whenever a tick was missed.
   * @defaultValue "skip"
   */
  misfire?: "skip" | "once";
  meta?: Record<string, unknown>;
}

/** A recurring task, not yet checked against the tasks of a queue. Made by `cronJob`. */
export interface CronJob<Task extends string = string, Payload = unknown> {
  readonly task: Task;
  readonly payload: Payload;
  readonly options: CronOptions;
}

/** What a queue with these tasks takes as `scheduledTasks`: the names and the payloads of its own tasks. */
export type ScheduledTasks<Tasks extends TaskMap> = readonly {
  [Name in keyof Tasks & string]: CronJob<Name, GivenPayload<PayloadOf<Tasks[Name]>>>;
}[keyof Tasks & string][];
type GivenPayload<P> = [P] extends [never] ? unknown : Record<never, never> extends P ? P | undefined : P;

/** What was written as a constant, as the value that it is. */
type Written<T> = T extends object ? { -readonly [Name in keyof T]: Written<T[Name]> } : T;

/**
 * A task that runs by the clock, whatever number of workers there is: one run per tick. `payload` is what each run is
 * given; needed when the task needs one.
 *
 * @throws ConfigError `Cron is invalid ...` with what is wrong and what is allowed, or for an unknown time zone
 */
export function cronJob<const Task extends string>(
  task: Task,
  options: CronOptions & { payload?: undefined },
): CronJob<Task, undefined>;
export function cronJob<const Task extends string, const Payload extends object>(
  task: Task,
  options: CronOptions & { payload: Payload },
): CronJob<Task, Written<Payload>>;
export function cronJob(task: string, { payload, ...options }: CronOptions & { payload?: unknown }): CronJob {
  // Read once more with the queue's time zone; here, so that the error points at the line that is wrong.
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

/** A run's key (C-6, D-55). `tick` is epoch s. */
export const cronKey = ({ name, overlap }: Pick<CronEntry, "name" | "overlap">, tick: number): string =>
  overlap === "allow" ? `cron:${name}:${tick}` : `cron:${name}`;

/** @throws ConfigError */
export function readScheduledTasks(
  at: string,
  given: readonly CronJob[],
  tasks: TaskMap,
  timezone: string,
): readonly CronEntry[] {
  if (!Array.isArray(given)) {
    throw new ConfigError(`${at}: scheduledTasks must be a list of cronJob(...), got ${typeof given}`);
  }
  const entries = given.map((job) => readEntry(at, job, tasks, timezone));
  const names = entries.map((entry) => entry.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    throw new ConfigError(
      `${at}: two scheduled tasks are named "${twice}", so that only one would run; ` +
        `give one of them a name of its own: cronJob("...", { name: "${twice}2", ... })`,
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
    throw new ConfigError(`${at}: scheduledTasks has no task "${job.task}" to run (there is: ${known})`);
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
    throw new ConfigError(`${here}: SAQ's unique is overlap here: unique=False is overlap: "allow"`);
  }
  return {
    name,
    task: job.task,
    cron: new Cron(cron, own),
    payload: job.payload,
    overlap,
    misfire,
    options: onlyJobOptions(here, options),
    meta,
  };
}
