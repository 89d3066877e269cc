/** The application's own errors, and a check whether an error means that the database is unreachable. */
import { types } from "node:util";
import { SaqError } from "../saq/index.js";

export interface FieldError {
  field: string;
  message: string;
}

/**
 * An error with an HTTP status. A route, or a function that it calls, throws it to end the request with that status.
 *
 * @example
 * throw new HttpError(409, "The order was sent already.");
 */
export class HttpError extends Error {
  readonly status: number;
  readonly errors: readonly FieldError[] | undefined;

  constructor(status: number, detail: string, errors?: readonly FieldError[]) {
    super(detail);
    this.name = "HttpError";
    this.status = status;
    this.errors = errors;
  }
}

/** Returns an HttpError 400 that names every wrong field. */
export function invalidFields(errors: readonly FieldError[]): HttpError {
  const list = errors.map(({ field, message }) => (field ? `${field} ${message}` : message)).join("; ");
  return new HttpError(400, `Invalid request: ${list}.`, errors);
}

/** Lists every problem with the environment, so that the user can fix all of them at once. */
export class SettingsError extends Error {
  constructor(problems: readonly string[]) {
    super(`The settings cannot be used:\n${problems.map((problem) => `  - ${problem}`).join("\n")}`);
    this.name = "SettingsError";
  }
}

/** SQLSTATEs of PostgreSQL: connection lost, server starting or stopping, and no free connection slot. */
const unavailable = /^(08\w{3}|57P0[123]|53300)$/;

/**
 * True if the database is unreachable, refuses connections, or closed the connection during a statement. Only the
 * queue's own error codes and PostgreSQL's SQLSTATEs count, because ECONNREFUSED may come from another service that a
 * route calls.
 */
export function isDatabaseUnavailable(error: unknown): boolean {
  if (error instanceof SaqError)
    return error.code === "database_unavailable" || error.code === "queue_closed";
  // `instanceof Error` does not work here: under Jest, Node's own errors come from another Error class than the tests'.
  if (!types.isNativeError(error)) return false;
  const { code, severity } = error as Error & { code?: unknown; severity?: unknown };
  return severity !== undefined && typeof code === "string" && unavailable.test(code);
}
