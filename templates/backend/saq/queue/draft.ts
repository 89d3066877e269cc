/**
 * From a call of `enqueue` to a job that is about to be stored. Everything about the job is decided and checked here.
 */

import { checkJobOptions, onlyJobOptions, type QueueConfig } from "../config/index.js";
import { isLarger, tooLarge } from "../core/byte-size.js";
import { type Capabilities, requireCapability } from "../core/capabilities.js";
import { dueSecond, type JobFields, jobDefaults, jobOptionNames } from "../core/job.js";
import { jsonText } from "../core/json-text.js";
import { newKey } from "../core/key.js";
import type { NewJob } from "../core/new-job.js";
import { omitUndefined } from "../core/omit-undefined.js";
import { encodeJob } from "../core/wire.js";
import { InvalidJobError, SaqError } from "../errors.js";
import { type AnyTask, type EnqueueOptions, inputSchemaOf, optionsOfTask } from "../tasks/task.js";
import { validatePayload } from "../tasks/validation.js";

export interface Draft {
  fields: JobFields;
  job: NewJob;
}

/**
 * An enqueue whose response was lost is sent again within this time, s. A job with a shorter ttl may have ended by
 * then, and its row may be gone.
 */
const shortTtl = 60;

/** The fields for which every job has its own value. */
type OwnField = "function" | "queueName" | "key" | "queued" | "meta";

interface KnownTask {
  task: AnyTask;
  /** The fields of the task's jobs, unless an enqueue sets them. */
  defaults: Omit<JobFields, OwnField>;
}

export class Drafts {
  readonly #queueName: string;
  readonly #maxBytes: number;
  /** Undefined: nothing is refused, because the job is not stored. */
  readonly #capabilities: Capabilities | undefined;
  readonly #tasks: ReadonlyMap<string, KnownTask>;
  /** For names that are not in `tasks`, if this process does not know the tasks. */
  readonly #anyTask: KnownTask | undefined;

  /** `anyTask`: also accepts names that are not in `tasks`. */
  constructor(
    { name, tasks, defaults, maxBytes }: QueueConfig,
    { anyTask = false, capabilities }: { anyTask?: boolean; capabilities?: Capabilities } = {},
  ) {
    this.#queueName = name;
    this.#maxBytes = maxBytes;
    this.#capabilities = capabilities;
    this.#anyTask = anyTask
      ? { task: () => {}, defaults: { ...jobDefaults, ...omitUndefined(defaults) } }
      : undefined;
    this.#tasks = new Map(
      Object.entries(tasks).map(([taskName, task]) => [
        taskName,
        {
          task,
          defaults: { ...jobDefaults, ...omitUndefined(defaults), ...omitUndefined(optionsOfTask(task)) },
        },
      ]),
    );
  }

  /**
   * Validates a payload as the worker will validate it again, in the form that JSON gives it: a Date that a schema
   * accepts here would be a text there. Returns a promise only if the task's schema is asynchronous.
   *
   * @throws SaqError unknown_task
   * @throws InvalidPayloadError that names each bad field
   * @throws InvalidJobError if the payload cannot be written as JSON
   */
  validate(name: string, payload: unknown): Promise<unknown> | undefined {
    const schema = inputSchemaOf(this.#find(name).task);
    if (!schema) return undefined;
    const stored: unknown = JSON.parse(asJson(`The payload of "${name}"`, payload ?? {}) ?? "null");
    const validated = validatePayload(name, schema, stored);
    return validated instanceof Promise ? validated : undefined;
  }

  /**
   * Returns the fields of a job with a checked payload. `nowMs` is the database's clock.
   *
   * @throws InvalidJobError if options or payload cannot be stored
   */
  fields(name: string, payload: unknown, options: EnqueueOptions, nowMs: number): JobFields {
    if (Object.keys(options).length > 0) {
      checkOptions(name, options);
      this.#checkCapabilities(`enqueue("${name}")`, options);
    }
    const { key, scheduled, priority = 0, groupKey = null, meta = {} } = options;
    const { defaults } = this.#find(name);
    // One literal with every member: V8 gives each job the same shape. Spreading 24 members costs 6 us each time, and
    // all code that reads the result is slower too (24.5 -> 13.5 us of CPU per enqueue measured).
    return {
      function: name,
      kwargs: asKwargs(name, payload),
      queueName: this.#queueName,
      key: key ?? newKey(),
      timeout: options.timeout === undefined ? defaults.timeout : options.timeout,
      heartbeat: options.heartbeat ?? defaults.heartbeat,
      retries: options.retries ?? defaults.retries,
      ttl: options.ttl ?? defaults.ttl,
      retryDelay: options.retryDelay ?? defaults.retryDelay,
      retryBackoff: options.retryBackoff ?? defaults.retryBackoff,
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
  }

  /**
   * Returns the job ready to be stored. `keyed`: the caller chose the key.
   *
   * @throws InvalidJobError if payload or meta cannot be written as JSON or are too large
   */
  toNewJob(fields: JobFields, keyed: boolean): NewJob {
    const { key, priority, groupKey, scheduled, ttl } = fields;
    const document = toDocument(fields);
    if (isLarger(document, this.#maxBytes)) this.#checkSizes(fields);
    return {
      key,
      document,
      priority,
      groupKey,
      scheduled,
      keyed,
      shortLived: ttl < 0 || (ttl > 0 && ttl < shortTtl),
    };
  }

  /** @throws InvalidJobError if the job belongs to another queue */
  checkQueue({ key, queueName }: { key: string; queueName: string }): void {
    if (queueName === this.#queueName) return;
    throw new InvalidJobError(
      `Job ${key} belongs to queue "${queueName}" and cannot be enqueued in "${this.#queueName}"; ` +
        "enqueue its task and payload as a new job instead",
    );
  }

  /**
   * Checks a job after the hooks have run: they may change only some fields, and only to values that can be stored.
   *
   * @throws InvalidJobError that names the field
   */
  checkHookChanges(fields: JobFields, original: JobFields): void {
    const at = `A before-enqueue hook made an invalid change to the job of "${original.function}"`;
    for (const name of Object.keys(original) as (keyof JobFields)[]) {
      if (hookFields.has(name) || Object.is(fields[name], original[name])) continue;
      const value = jsonText(fields[name]);
      throw new InvalidJobError(
        `${at}: it set ${name} to ${value} (hooks may set: ${[...hookFields].join(", ")})`,
      );
    }
    const { timeout, heartbeat, retries, ttl, retryDelay, retryBackoff } = fields;
    checkJobOptions(at, { timeout, heartbeat, retries, ttl, retryDelay, retryBackoff }, InvalidJobError);
    checkPriority(at, fields.priority);
    fields.scheduled = dueSecond(fields.scheduled, 0);
    fields.kwargs = asKwargs(fields.function, fields.kwargs);
    checkGroup(at, fields.groupKey);
    checkMeta(at, fields.meta);
    this.#checkCapabilities(at, fields);
  }

  /** @throws ConfigError if the storage cannot do what these options ask for */
  #checkCapabilities(
    at: string,
    {
      client,
      groupKey = null,
      priority = 0,
    }: { client?: unknown; groupKey?: string | null; priority?: number },
  ): void {
    const capabilities = this.#capabilities;
    if (!capabilities) return;
    if (client) requireCapability(at, "transactions", capabilities);
    if (groupKey !== null) requireCapability(at, "groups", capabilities);
    if (priority !== 0) requireCapability(at, "priorities", capabilities);
  }

  #checkSizes(fields: JobFields): void {
    for (const [part, value] of partsOf(fields)) {
      const text = JSON.stringify(value);
      if (isLarger(text, this.#maxBytes)) throw new InvalidJobError(tooLarge(part, text, this.#maxBytes));
    }
  }

  #find(name: string): KnownTask {
    const found = this.#tasks.get(name) ?? this.#anyTask;
    if (found) return found;
    const names = [...this.#tasks.keys()].join(", ");
    throw new SaqError(
      "unknown_task",
      `Queue "${this.#queueName}" has no task "${name}" (registered: ${names})`,
    );
  }
}

/** The fields that a hook may set. */
const hookFields: ReadonlySet<string> = new Set([
  "kwargs",
  ...jobOptionNames,
  "scheduled",
  "priority",
  "groupKey",
  "meta",
] satisfies (keyof JobFields)[]);

function checkOptions(name: string, options: EnqueueOptions): void {
  const at = `enqueue("${name}")`;
  const { key, scheduled: _, priority = 0, groupKey = null, meta, client: __, ...others } = options;
  checkPriority(at, priority);
  if (key !== undefined && key !== null && typeof key !== "string")
    throw new InvalidJobError(`${at}: key must be a text, got ${jsonText(key)}`);
  checkGroup(at, groupKey);
  if (meta !== undefined) checkMeta(at, meta);
  onlyJobOptions(at, others, InvalidJobError, ["key", "scheduled", "priority", "groupKey", "meta", "client"]);
}

function checkPriority(at: string, priority: number): void {
  if (Number.isInteger(priority) && priority >= -32768 && priority <= 32767) return;
  throw new InvalidJobError(
    `${at}: priority must be a whole number of -32768 to 32767, got ${String(priority)}`,
  );
}

function checkGroup(at: string, groupKey: unknown): void {
  if (groupKey === null || typeof groupKey === "string") return;
  throw new InvalidJobError(`${at}: groupKey must be a text or null, got ${jsonText(groupKey)}`);
}

function checkMeta(at: string, meta: unknown): void {
  if (typeof meta === "object" && meta !== null && !Array.isArray(meta)) return;
  throw new InvalidJobError(`${at}: meta must be an object, got ${jsonText(meta)}`);
}

function asKwargs(name: string, payload: unknown): Record<string, unknown> | null {
  if (payload === undefined || payload === null) return null;
  if (typeof payload === "object" && !Array.isArray(payload)) return payload as Record<string, unknown>;
  const kind = Array.isArray(payload) ? "an array" : `a ${typeof payload}`;
  throw new InvalidJobError(
    `The payload of "${name}" must be an object of named values, got ${kind}; wrap it: { value: ... }`,
  );
}

/** The parts of a job that may have any content, each with its name for messages. */
const partsOf = ({ function: name, kwargs, meta }: JobFields): [part: string, value: unknown][] => [
  [`The payload of "${name}"`, kwargs],
  [`The meta of "${name}"`, meta],
];

function toDocument(fields: JobFields): string {
  try {
    return encodeJob(fields);
  } catch (error) {
    for (const [part, value] of partsOf(fields)) asJson(part, value);
    throw error;
  }
}

/** @throws InvalidJobError that names the part, if the value cannot be written as JSON */
function asJson(part: string, value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch (error) {
    throw new InvalidJobError(`${part} cannot be written as JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
