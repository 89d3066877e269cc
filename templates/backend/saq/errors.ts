/** A stable word that says what went wrong; code may switch on it. The message is for people and may change. */
export type SaqErrorCode =
  /** `ctx.finish` was called again, and the transaction of the first call is open or has committed. */
  | "already_finished"
  /** The configuration, or a value like it, cannot work. */
  | "config"
  /** The database does not answer. A job that was being enqueued may be stored all the same. */
  | "database_unavailable"
  /** A job, an option or another argument of a call is invalid. */
  | "invalid_job"
  /** The task's `input` schema refused the payload. */
  | "invalid_payload"
  /** The task's `output` schema refused the result, or the result cannot be stored. */
  | "invalid_result"
  /** The text is not an address of a PostgreSQL database. */
  | "invalid_url"
  /** A job that was awaited failed or was aborted. */
  | "job_failed"
  /** The job's row does not exist (any more). */
  | "job_gone"
  /** Another transaction has held the job's row for longer than 5 s (`ctx.job.update`: 30 s). */
  | "job_held"
  /** The attempt does not own its job any more. */
  | "job_lost"
  /** Another transaction has held the key for longer than 2 s; the job was not stored. */
  | "key_held"
  /** A list of jobs took longer than 5 s. */
  | "list_too_slow"
  /** `ctx.finish` got a client that is not inside a transaction. */
  | "no_transaction"
  /** A batch failed, and some of its jobs could not be aborted. */
  | "not_aborted"
  /** The key of a job to wait for belongs to another queue. */
  | "other_queue"
  /** The stored document is not a SAQ job, or is too large to be read. */
  | "poison_document"
  /** The queue was closed, before the call or while it waited for a job. */
  | "queue_closed"
  /** The tables have a version that this engine does not know, or could not be upgraded. */
  | "schema_version"
  /** The timeout of a wait for jobs is over. */
  | "timeout"
  /** There is no queue with this name. */
  | "unknown_queue"
  /** The queue has no scheduled task with this name. */
  | "unknown_schedule"
  /** The queue has no task with this name. */
  | "unknown_task"
  /** A worker could not record how a job ended. It is logged, and not thrown to callers. */
  | "unrecorded"
  /** A worker process of the server could not start. The message contains the reason. */
  | "worker_failed";

/**
 * Base class of the engine's errors that have a code. `cause` is the original error, if there is one. An error of
 * PostgreSQL that is no outage, such as a wrong password, is thrown as `pg` made it.
 *
 * @example
 * if (error instanceof SaqError && error.code === "database_unavailable") res.status(503).end();
 */
export class SaqError extends Error {
  /** What went wrong, for code to switch on. */
  readonly code: SaqErrorCode;

  constructor(code: SaqErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/**
 * The configuration cannot work, or another value that the application's code gives to the engine: a task, a hook or
 * what a hook returns. Its code is `config`.
 */
export class ConfigError extends SaqError {
  constructor(message: string, options?: ErrorOptions) {
    super("config", message, options);
  }
}

/**
 * A job cannot be stored, or another argument of a call is invalid: a key, payload, size or option is out of bounds.
 * That job was not written. Its code is `invalid_job`.
 */
export class InvalidJobError extends SaqError {
  constructor(message: string, options?: ErrorOptions) {
    super("invalid_job", message, options);
  }
}

/** One problem that a schema found. `path` is the field, for example `items.0.name`; empty for the whole value. */
export interface Issue {
  readonly path: string;
  readonly message: string;
}

const listed = (issues: readonly Issue[]): string =>
  issues.map(({ path, message }) => (path ? `${path}: ${message}` : message)).join("; ");

/** The task's `input` schema refused the payload. Its code is `invalid_payload`. */
export class InvalidPayloadError extends SaqError {
  /** One entry per problem; each names the field. */
  readonly issues: readonly Issue[];

  constructor(taskName: string, issues: readonly Issue[]) {
    super("invalid_payload", `Invalid payload for task "${taskName}": ${listed(issues)}`);
    this.issues = issues;
  }
}

/**
 * The task's `output` schema refused the result, or `ctx.finish` got a result that cannot be stored. The job fails even
 * if attempts are left. Its code is `invalid_result`.
 */
export class InvalidResultError extends SaqError {
  /** One entry per problem; each names the field. */
  readonly issues: readonly Issue[];

  constructor(taskName: string, issues: readonly Issue[]) {
    super("invalid_result", `Invalid result of task "${taskName}": ${listed(issues)}`);
    this.issues = issues;
  }
}

/**
 * The text is not an address of a PostgreSQL database. The message never repeats the address, because it may contain a
 * password. Its code is `invalid_url`.
 */
export class InvalidUrlError extends SaqError {
  constructor(message: string) {
    super("invalid_url", message);
  }
}

/**
 * A stored document is not a SAQ job, or is too large to be read. Its bytes stay as they are. A worker that claims such
 * a row sets it aside as failed. Its code is `poison_document`.
 */
export class PoisonDocumentError extends SaqError {
  constructor(message: string, options?: ErrorOptions) {
    super("poison_document", message, options);
  }
}

/** The job's row does not exist (any more): its ttl ran out, or it was deleted. Its code is `job_gone`. */
export class JobGoneError extends SaqError {
  constructor(key: string) {
    super("job_gone", `Job ${key} does not exist (any more): it was deleted, or its ttl ran out`);
  }
}

/**
 * The attempt does not own the job any more: the job was aborted, its timeout is over, or another worker has taken it
 * over. Thrown by `ctx.finish`, so that the transaction of a task that is too late is rolled back. Its code is
 * `job_lost`.
 */
export class JobLostError extends SaqError {
  constructor(key: string, reason: string, options?: ErrorOptions) {
    super("job_lost", `Job ${key} cannot be finished: ${reason}. Roll back the transaction`, options);
  }
}

/** The timeout of a wait for jobs is over. The jobs themselves go on. Its code is `timeout`. */
export class TimeoutError extends SaqError {
  /** The keys of the jobs that were awaited. */
  readonly keys: readonly string[];

  constructor(keys: readonly string[], seconds: number, options?: ErrorOptions) {
    const jobs = keys.length === 1 ? `Job ${keys[0]} has` : `${keys.length} jobs have`;
    super(
      "timeout",
      `${jobs} not ended within ${seconds} s. Only the wait has ended; no job was stopped. ` +
        "Is a worker running? Wait longer, or read the job later with queue.job(key)",
      options,
    );
    this.keys = keys;
  }
}
