/** Says what an error of the database or of its driver means, for example whether a retry may succeed. */
import { SaqError } from "../../errors.js";

const connectionCodes = new Set([
  "ECONNRESET",
  "ECONNREFUSED",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "57P01",
  "57P02",
  "57P03",
  "57P05",
  // The server ended a session whose transaction was idle for too long, or took too long.
  "25P03",
  "25P04",
  // The server is a standby: it was the primary before a failover.
  "25006",
]);

/** Returns true if the connection or the server was lost. The statement may or may not have been carried out. */
export function isConnectionError(error: unknown): boolean {
  if (error instanceof SaqError) return error.code === "database_unavailable";
  // Checked by shape, not by class: in a test runner's sandbox, Node's own errors are not instances of its `Error`.
  if (typeof error !== "object" || error === null) return false;
  const { message = "", errors } = error as { message?: unknown; errors?: unknown };
  if (Array.isArray(errors) && errors.some(isConnectionError)) return true;
  const code = codeOf(error);
  // 08: the connection. 53: no space for another connection, or on the disk. 58: an error of the server's own system.
  if (code !== null && (connectionCodes.has(code) || /^(08|53|58)/.test(code))) return true;
  return /Connection terminated|timeout exceeded when trying to connect|Query read timeout|not queryable/i.test(
    String(message),
  );
}

/**
 * Returns the error as callers get it: a connection error as `database_unavailable`, every other error unchanged. The
 * driver's own error for a refused connection looks like the error of a refused `fetch`.
 */
export function markUnavailable(error: unknown): unknown {
  if (!isConnectionError(error) || error instanceof SaqError) return error;
  const { message, errors } = error as { message: string; errors?: { message: string }[] };
  // For a host name with several addresses, Node returns one error for each address and no message for all of them.
  const reason = message || errors?.map((each) => each.message).join(", ") || codeOf(error);
  return new SaqError("database_unavailable", `The database does not answer: ${reason}`, { cause: error });
}

/** Returns true if the server ended the session while it was idle: the statement was not carried out. */
export const wasIdleTooLong = (error: unknown): boolean => codeOf(error) === "57P05";

/** Returns true if no answer came in time. The statement may still be running, and a retry would double the wait. */
export const isReadTimeout = (error: unknown): boolean =>
  /Query read timeout/.test(String((error as { message?: unknown } | null)?.message));

const missingTable = "42P01";

/** Returns true if a statement names a table that does not exist. */
export const isMissingTable = (error: unknown): boolean => codeOf(error) === missingTable;

/**
 * Replaces the error of a missing table with one error for all tables, which says what to do. Returns every other error
 * unchanged. The code is kept, so that `isTransient` accepts the error and results are kept until the table is back.
 */
export function explainMissingTable(error: unknown): unknown {
  if (!isMissingTable(error)) return error;
  const message =
    "the queue's tables are missing; the next start of a worker or of the API creates them, " +
    "then this process continues";
  return Object.assign(new Error(message, { cause: error }), { code: missingTable });
}

/**
 * Replaces the error that a connection pooler in transaction mode returns for start-up options or named statements with
 * one that says what to do. Returns every other error unchanged.
 */
export function explainPooler(error: unknown): unknown {
  const code = codeOf(error);
  const message = String((error as { message?: unknown } | null)?.message);
  const isPooler =
    code === "26000" ||
    code === "42P05" ||
    (/^(08P01|0A000)$/.test(code ?? "") && /startup parameter|command-line options/i.test(message));
  if (!isPooler) return error;
  return new SaqError(
    "config",
    `A connection pooler in transaction mode is between this process and PostgreSQL (its error: ${message}). ` +
      "Set pollInterval in defineQueue, for example to 1, or give the queue the address of the server itself.",
    { cause: error },
  );
}

/** Returns true if the data of one row is wrong (a bad value, a constraint, a limit): a smaller batch may succeed. */
export function isDataError(error: unknown): boolean {
  const code = codeOf(error);
  return code !== null && /^(22|23|54)/.test(code);
}

/** Returns true if another transaction has locked a row that the statement needs. */
export const isLockTimeout = (error: unknown): boolean => codeOf(error) === "55P03";

/** Returns true for a deadlock or a conflict of serializable transactions: nothing was done, and a retry is safe. */
export const isRolledBack = (error: unknown): boolean => /^40(001|P01)$/.test(codeOf(error) ?? "");

/** Returns true if the role does not have the right to run the statement. */
export const isRefused = (error: unknown): boolean => codeOf(error) === "42501";

/** Returns true if a statement_timeout of the role or a pg_cancel_backend cancelled the statement. */
export const isCancelled = (error: unknown): boolean => codeOf(error) === "57014";

/**
 * Returns true if the server or the connection to it caused the error, not the statement: what may be sent twice is
 * worth a retry. Also true for a missing right or table: somebody may repair it, and a result that is given up is lost.
 */
export function isTransient(error: unknown): boolean {
  // A pooler's error says that it switched to another session of the server; the next session may be the right one.
  const given = error instanceof SaqError && error.code === "config" ? error.cause : error;
  return isConnectionError(given) || (/^[0-9A-Z]{5}$/.test(codeOf(given) ?? "") && !isDataError(given));
}

function codeOf(error: unknown): string | null {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === "string" ? code : null;
}
