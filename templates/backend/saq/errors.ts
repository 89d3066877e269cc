/** A stable word that says what went wrong; code may switch on it. The message is for people and may change. */
export type SaqErrorCode =
  | "already_finished"
  | "config"
  | "database_unavailable"
  | "invalid_job"
  | "invalid_payload"
  | "invalid_result"
  | "invalid_url"
  | "job_failed"
  | "job_gone"
  | "job_held"
  | "job_lost"
  | "key_held"
  | "list_too_slow"
  | "no_transaction"
  | "not_aborted"
  | "other_queue"
  | "poison_document"
  | "queue_closed"
  | "schema_version"
  | "timeout"
  | "unknown_queue"
  | "unknown_schedule"
  | "unknown_task"
  | "unrecorded";

/**
 * Base class of all errors that the engine throws. `code` is stable; `cause` is the original error, if there is one.
 */
export class SaqError extends Error {
  readonly code: SaqErrorCode;

  constructor(code: SaqErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** The configuration cannot work. Thrown while the configuration is defined, never later. */
export class ConfigError extends SaqError {
  constructor(message: string, options?: ErrorOptions) {
    super("config", message, options);
  }
}

/** A job cannot be stored: its key, payload, size or options are out of bounds. Nothing was written. */
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

/** The task's `input` schema refused the payload. `issues` name the fields (Standard Schema). */
export class InvalidPayloadError extends SaqError {
  readonly issues: readonly Issue[];

  constructor(taskName: string, issues: readonly Issue[]) {
    super("invalid_payload", `Invalid payload for task "${taskName}": ${listed(issues)}`);
    this.issues = issues;
  }
}

/** The task's `output` schema refused the returned value. The job fails even if attempts are left. */
export class InvalidResultError extends SaqError {
  readonly issues: readonly Issue[];

  constructor(taskName: string, issues: readonly Issue[]) {
    super("invalid_result", `Invalid result of task "${taskName}": ${listed(issues)}`);
    this.issues = issues;
  }
}

/** The text is not an address of a queue. The message never repeats the address, because it may contain a password. */
export class InvalidUrlError extends SaqError {
  constructor(message: string) {
    super("invalid_url", message);
  }
}

/** A stored document is not a SAQ job. The row is set aside as failed; its bytes stay as they are. */
export class PoisonDocumentError extends SaqError {
  constructor(message: string, options?: ErrorOptions) {
    super("poison_document", message, options);
  }
}

/** The job's row does not exist any more: its ttl ran out, or it was deleted. */
export class JobGoneError extends SaqError {
  constructor(key: string) {
    super("job_gone", `Job ${key} does not exist (any more): it was deleted, or its ttl ran out`);
  }
}

/**
 * The attempt does not own the job any more: the job was aborted, its timeout is over, or another worker has taken it
 * over. Thrown by `ctx.finish`, so that the transaction of a task that is too late is rolled back.
 */
export class JobLostError extends SaqError {
  constructor(key: string, why: string, options?: ErrorOptions) {
    super("job_lost", `Job ${key} cannot be finished: ${why}. Let its transaction roll back`, options);
  }
}

/** The timeout of a wait for jobs is over. The jobs themselves go on. */
export class TimeoutError extends SaqError {
  readonly keys: readonly string[];

  constructor(keys: readonly string[], seconds: number, options?: ErrorOptions) {
    const what = keys.length === 1 ? `Job ${keys[0]} has` : `${keys.length} jobs have`;
    super(
      "timeout",
      `${what} not ended within ${seconds} s; nothing was stopped, only the wait is over. Is a worker running? ` +
        "Wait longer, or look again with queue.job(key)",
      options,
    );
    this.keys = keys;
  }
}
