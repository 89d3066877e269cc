/** The application's own errors, and how to tell that an error means "no database". */
import { types } from "node:util";

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

const connectionCodes =
  /^(ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|08\w{3}|57P0[123]|53300)$/;

/** The database cannot be reached, refuses connections, or went away in the middle. */
export function isDatabaseAway(error: unknown): boolean {
  // Not instanceof: under Jest, errors of Node itself are made by another Error than the tests'.
  if (!types.isNativeError(error)) return false;
  const { code, cause, errors, message } = error as Error & { code?: unknown; errors?: unknown[] };
  if (code === "queue_closed" || (typeof code === "string" && connectionCodes.test(code))) return true;
  if (/connection terminated|timeout exceeded when trying to connect|query read timeout/i.test(message))
    return true;
  return [cause, ...(errors ?? [])].some(isDatabaseAway);
}
