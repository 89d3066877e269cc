/** The application's own errors, and how to tell that an error means "no database". */
import { types } from "node:util";
import { SaqError } from "../saq/index.js";

export interface FieldError {
  field: string;
  message: string;
}

/** Throw it anywhere below a route: `throw new HttpError(409, "The order was sent already.")`. */
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

/** 400 that names every bad field. */
export function invalidFields(errors: readonly FieldError[]): HttpError {
  const list = errors.map(({ field, message }) => (field ? `${field} ${message}` : message)).join("; ");
  return new HttpError(400, `Invalid request: ${list}.`, errors);
}

/** Lists everything that is wrong with the environment, so that it is put right in one go. */
export class SettingsError extends Error {
  constructor(problems: readonly string[]) {
    super(`The settings cannot be used:\n${problems.map((problem) => `  - ${problem}`).join("\n")}`);
    this.name = "SettingsError";
  }
}

/** SQLSTATEs of PostgreSQL: the connection, a server that starts or stops, and no room for one more connection. */
const unavailable = /^(08\w{3}|57P0[123]|53300)$/;

/**
 * The database cannot be reached, refuses connections, or went away in the middle. Only the queue's own error codes and
 * PostgreSQL's SQLSTATEs count, because ECONNREFUSED may come from another service that a route calls.
 */
export function isDatabaseAway(error: unknown): boolean {
  if (error instanceof SaqError)
    return error.code === "database_unavailable" || error.code === "queue_closed";
  // Not instanceof: under Jest, errors of Node itself are made by another Error than the tests'.
  if (!types.isNativeError(error)) return false;
  const { code, severity } = error as Error & { code?: unknown; severity?: unknown };
  return severity !== undefined && typeof code === "string" && unavailable.test(code);
}
