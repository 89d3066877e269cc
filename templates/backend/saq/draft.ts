/** From a call of `enqueue` to a job about to be stored: everything about it is decided and checked here. */
import type { NewJob } from "./broker.js";
import { onlyJobOptions, type QueueConfig } from "./config/index.js";
import { InvalidJobError, SaqError } from "./errors.js";
import { dueSecond, type JobFields, jobDefaults } from "./job.js";
import { newKey } from "./key.js";
import { type AnyTask, type EnqueueOptions, optionsOfTask, validatePayload } from "./task.js";
import { encodeJob } from "./wire.js";

export interface Draft {
  fields: JobFields;
  job: NewJob;
}

/** The fields that every job has a value of its own for. */
type Named = "function" | "queueName" | "key" | "queued" | "meta";

interface Known {
  task: AnyTask;
  /** What the task's jobs are made of unless an enqueue says otherwise. */
  defaults: Omit<JobFields, Named>;
}

export class Drafts {
  readonly #queueName: string;
  readonly #known: ReadonlyMap<string, Known>;

  constructor({ name, tasks, defaults }: QueueConfig) {
    this.#queueName = name;
    this.#known = new Map(
      Object.entries(tasks).map(([taskName, task]) => [
        taskName,
        { task, defaults: { ...jobDefaults, ...defined(defaults), ...defined(optionsOfTask(task)) } },
      ]),
    );
  }

  /**
   * Validates a payload as the worker will again; a promise only where the task's schema is asynchronous.
   *
   * @throws SaqError unknown_task
   * @throws InvalidPayloadError naming each bad field
   */
  check(name: string, payload: unknown): Promise<unknown> | undefined {
    const checked = validatePayload(name, this.#find(name).task, payload ?? {});
    return checked instanceof Promise ? checked : undefined;
  }

  /**
   * The job of a checked payload. `nowMs` is the database's clock.
   *
   * @throws InvalidJobError when key, options or payload cannot be stored
   */
  make(name: string, payload: unknown, options: EnqueueOptions, nowMs: number): Draft {
    const { key, scheduled, priority = 0, groupKey = null, meta = {}, client: _, ...given } = options;
    if (!Number.isInteger(priority) || priority < -32768 || priority > 32767) {
      throw new InvalidJobError(
        `priority must be a whole number of -32768 to 32767, got ${String(priority)}`,
      );
    }
    const own = onlyJobOptions(`enqueue("${name}")`, given, InvalidJobError);
    const { defaults } = this.#find(name);
    // One literal with every member: V8 gives each job the same shape. Spreading 24 members costs 6 us each time, and
    // all that reads the result is slower too (24.5 -> 13.5 us of CPU per enqueue measured).
    const fields: JobFields = {
      function: name,
      kwargs: asKwargs(name, payload),
      queueName: this.#queueName,
      key: key ?? newKey(),
      timeout: own.timeout === undefined ? defaults.timeout : own.timeout,
      heartbeat: own.heartbeat ?? defaults.heartbeat,
      retries: own.retries ?? defaults.retries,
      ttl: own.ttl ?? defaults.ttl,
      retryDelay: own.retryDelay ?? defaults.retryDelay,
      retryBackoff: own.retryBackoff ?? defaults.retryBackoff,
      scheduled: dueSecond(scheduled, nowMs),
      progress: 0,
      attempts: 0,
      completed: 0,
      queued: Math.round(nowMs),
      started: 0,
      touched: 0,
      result: null,
      error: null,
      status: "queued",
      priority,
      groupKey,
      meta,
      workerId: null,
    };
    return {
      fields,
      job: {
        key: fields.key,
        document: encode(name, fields),
        priority,
        groupKey,
        scheduled: fields.scheduled,
        keyed: key !== undefined,
      },
    };
  }

  #find(name: string): Known {
    const known = this.#known.get(name);
    if (known) return known;
    const names = [...this.#known.keys()].join(", ");
    throw new SaqError(
      "unknown_task",
      `Queue "${this.#queueName}" has no task "${name}" (registered: ${names})`,
    );
  }
}

/** Leaves out what was not given, so that it does not hide a default. */
function defined<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>;
}

function asKwargs(name: string, payload: unknown): Record<string, unknown> | null {
  if (payload === undefined || payload === null) return null;
  if (typeof payload === "object" && !Array.isArray(payload)) return payload as Record<string, unknown>;
  const kind = Array.isArray(payload) ? "an array" : `a ${typeof payload}`;
  throw new InvalidJobError(
    `The payload of "${name}" must be an object of named values, got ${kind}; wrap it: { value: ... }`,
  );
}

function encode(name: string, fields: JobFields): string {
  try {
    return encodeJob(fields);
  } catch (error) {
    const why = (error as Error).message;
    throw new InvalidJobError(`The payload of "${name}" cannot be written as JSON: ${why}`, { cause: error });
  }
}
