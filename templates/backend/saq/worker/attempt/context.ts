/**
 * What a task sees as `ctx`. Its members are created on first use, and the members that startup hooks returned are on
 * the prototype, so that a job that does not use them pays nothing for them.
 */

import { historyOf } from "../../core/attempt-history.js";
import type { JobFields } from "../../core/job.js";
import { ConfigError } from "../../errors.js";
import type { Logger } from "../../logger.js";
import { snooze } from "../../tasks/snooze.js";
import type {
  AnyTask,
  ApplyOptions,
  JobContext,
  ResultOf,
  RunningJob,
  WorkerContext,
  WorkerView,
} from "../../tasks/task.js";
import type { Attempt } from "./attempt.js";

/** What a context needs from its worker. `applyWith` is `apply` for arguments that the compiler has already checked. */
export interface ContextServices extends WorkerContext {
  applyWith<T extends AnyTask>(task: T, payload: unknown, options?: ApplyOptions): Promise<ResultOf<T>>;
}

export class TaskContext implements JobContext {
  readonly #services: ContextServices;
  readonly #attempt: Attempt;
  #log: Logger | null = null;
  #job: RunningJob | null = null;

  constructor(services: ContextServices, attempt: Attempt) {
    this.#services = services;
    this.#attempt = attempt;
  }

  get job(): RunningJob {
    this.#job ??= jobView(this.#attempt);
    return this.#job;
  }

  get queue(): { readonly name: string } {
    return this.#services.queue;
  }

  get worker(): WorkerView {
    return this.#services.worker;
  }

  get workerId(): string {
    return this.#services.workerId;
  }

  get signal(): AbortSignal {
    return this.#attempt.signal;
  }

  get exception(): unknown {
    return this.#attempt.exception;
  }

  get log(): Logger {
    const { key, function: task } = this.#attempt.fields;
    this.#log ??= this.#services.log.child({ job: key, task });
    return this.#log;
  }

  // Getters that return functions, so that a task may destructure its ctx.

  get enqueue(): JobContext["enqueue"] {
    return this.#services.enqueue;
  }

  get apply(): JobContext["apply"] {
    return (task, ...args) => {
      const [payload, options] = args as [payload?: unknown, options?: ApplyOptions];
      // A task that must end must not wait for another job until its hard deadline.
      const signal = options?.signal ? AbortSignal.any([this.signal, options.signal]) : this.signal;
      return this.#services.applyWith(task, payload, { ...options, signal });
    };
  }

  get finish(): JobContext["finish"] {
    return (result, { client }) => this.#attempt.finish(result, client);
  }

  get snooze(): JobContext["snooze"] {
    return snooze;
  }
}

/** Shared by all jobs, so that a job whose history nobody reads pays nothing for it. */
const history: PropertyDescriptor & ThisType<JobFields> = {
  get() {
    return historyOf(this);
  },
};

function jobView(attempt: Attempt): RunningJob {
  const { fields } = attempt;
  // The fields are the prototype: they are not copied, and later changes of them are visible.
  const view = Object.create(fields) as RunningJob;
  Object.defineProperty(view, "history", history);
  return Object.assign(view, {
    id: fields.key,
    update: (change: Parameters<RunningJob["update"]>[0]) => attempt.update(change),
  });
}

/** Returns the class of ctx for a worker whose startup hooks returned the members `state`. */
export function contextsWith(state: object): typeof TaskContext {
  if (Object.keys(state).length === 0) return TaskContext;
  const Stateful = class extends TaskContext {};
  Object.assign(Stateful.prototype, state);
  return Stateful;
}

/**
 * Returns the members that a hook's return value adds to ctx; null if the value is not an object. The value of a hook
 * such as `() => list.push(1)` has no meaning.
 *
 * @throws ConfigError if a member would hide one of ctx's own, or if the value is an object of a class
 */
export function membersOf(hook: string, returned: unknown): object | null {
  if (typeof returned !== "object" || returned === null) return null;
  const prototype: unknown = Object.getPrototypeOf(returned);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    const className = (returned as { constructor?: { name?: string } }).constructor?.name ?? "object";
    throw new ConfigError(
      `A ${hook} hook returned an object of class ${className}. Return nothing, or a plain object with the members ` +
        "for ctx, for example { db: pool }",
    );
  }
  const reserved = Object.keys(returned).find((name) => name in TaskContext.prototype);
  if (reserved === undefined) return returned;
  throw new ConfigError(
    `A ${hook} hook returned a member "${reserved}", but every ctx already has a member of that name. Choose another ` +
      "name",
  );
}
