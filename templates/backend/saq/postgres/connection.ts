/** What makes a connection of ours: the address with our session settings, and which errors mean "try again". */
import type pg from "pg";
import { SaqError } from "../errors.js";
import { clientConfigs, parsePostgresAddress } from "../postgres-address.js";
import type { ClientOptions } from "./client.js";
import { answerTimeoutMs, connectTimeoutMs, startupOptions } from "./session-settings.js";

export interface ClientKind {
  /** No start-up options of ours, which transaction poolers refuse. */
  plain: boolean;
  /** Further start-up options, as `-c name=value`. */
  extra?: string;
  /** The application's name in pg_stat_activity, unless the address or PGAPPNAME has another. */
  name?: string;
  /** ms; 0 waits for ever. */
  queryTimeout?: number;
}

/**
 * Client settings for a DSN. What the address or PG* variables say wins over our defaults; start-up options of both
 * are sent together.
 *
 * @throws {PostgresAddressError} when the address cannot be read
 */
export function clientConfig(
  dsn: string,
  // A half-open socket answers nothing for ever.
  { plain, extra = "", name = "saq", queryTimeout = answerTimeoutMs }: ClientKind,
): ClientOptions {
  const address = parsePostgresAddress(dsn);
  const options = plain ? address.options : startupOptions(address.options ?? "", extra);
  const ways = clientConfigs({ ...address, options: options || undefined }).map((way) => ({
    fallback_application_name: name,
    connectionTimeoutMillis: connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    query_timeout: queryTimeout,
    ...way,
  }));
  const [{ connectionTimeoutMillis = 0 } = {}] = ways;
  return {
    ...ways[0],
    // Each way is given its time.
    connectionTimeoutMillis: connectionTimeoutMillis * ways.length,
    ways,
    targetSessionAttrs: address.targetSessionAttrs,
  };
}

/** A statement whose answer is waited for that long instead of `answerTimeoutMs`. */
export const withTimeout = (text: string, ms: number): pg.QueryConfig =>
  Object.assign({ text }, { query_timeout: ms });

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
  // The server has ended a session whose transaction stood still, or lasted too long.
  "25P03",
  "25P04",
  // A standby: the server that was the primary before a failover.
  "25006",
]);

/** The connection or the server went away; the statement may or may not have been carried out. */
export function isConnectionError(error: unknown): boolean {
  if (error instanceof SaqError) return error.code === "database_unavailable";
  // By shape, not by class: an error of Node's own is no instance of the Error of a test runner's sandbox.
  if (typeof error !== "object" || error === null) return false;
  const { message = "", errors } = error as { message?: unknown; errors?: unknown };
  if (Array.isArray(errors) && errors.some(isConnectionError)) return true;
  const code = codeOf(error);
  // 08: the connection. 53: no room for one more connection, or on the disk. 58: the server's own system.
  if (code !== null && (connectionCodes.has(code) || /^(08|53|58)/.test(code))) return true;
  return /Connection terminated|timeout exceeded when trying to connect|Query read timeout|not queryable/i.test(
    String(message),
  );
}

/**
 * The error as callers get it: a lost connection as `database_unavailable`, every other error as it is. The driver's
 * own error of a refused connection looks like that of a refused `fetch`.
 */
export function markUnavailable(error: unknown): unknown {
  if (!isConnectionError(error) || error instanceof SaqError) return error;
  const { message, errors } = error as { message: string; errors?: { message: string }[] };
  // For a host name with several addresses Node gives an error for each, and no message for all.
  const reason = message || errors?.map((each) => each.message).join(", ") || codeOf(error);
  return new SaqError("database_unavailable", `The database does not answer: ${reason}`, { cause: error });
}

/** The server has ended the session while it was idle: the statement that met this was not carried out. */
export const wasIdleTooLong = (error: unknown): boolean => codeOf(error) === "57P05";

/** No answer has come in time: the statement may be under way still, and waiting once more would double the time. */
export const isReadTimeout = (error: unknown): boolean =>
  /Query read timeout/.test(String((error as { message?: unknown } | null)?.message));

/**
 * A table that is missing as one error for all tables, with what to do about it; every other error as it is. The code
 * stays, by which a result waits for a table that comes back.
 */
export function explainMissingTable(error: unknown): unknown {
  const code = codeOf(error);
  if (code !== "42P01") return error;
  const message =
    "the queue's tables are missing; the next start of a worker or of the API makes them, and this process goes on";
  return Object.assign(new Error(message, { cause: error }), { code });
}

/**
 * What a connection pooler in transaction mode answers to start-up options or named statements, with what to do about
 * it; every other error as it is.
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
    `Between this process and PostgreSQL is a connection pooler in transaction mode (it answers: ${message}). ` +
      "Set pollInterval in defineQueue, 1 for instance, or give the queue the address of the server itself.",
    { cause: error },
  );
}

/** The data of one row is at fault, so that a smaller batch may pass: a bad value, a constraint, a limit. */
export function isDataError(error: unknown): boolean {
  const code = codeOf(error);
  return code !== null && /^(22|23|54)/.test(code);
}

/** Somebody's transaction holds a row that we wanted. */
export const isLockTimeout = (error: unknown): boolean => codeOf(error) === "55P03";

/** A deadlock, or a conflict of serializable transactions: nothing was done, and it may be sent again. */
export const isRolledBack = (error: unknown): boolean => /^40(001|P01)$/.test(codeOf(error) ?? "");

/** The role has not the right to do that. */
export const isRefused = (error: unknown): boolean => codeOf(error) === "42501";

/** A role's statement_timeout, or somebody's pg_cancel_backend. */
export const isCancelled = (error: unknown): boolean => codeOf(error) === "57014";

/**
 * The server or the way to it, not what was sent: what may be sent twice is worth sending again. Also a right that was
 * taken away, or a table: somebody may repair it, and a result that is given up is lost.
 */
export function isPassing(error: unknown): boolean {
  // What a pooler says of a session that is another one by now: the next may be the right one.
  const given = error instanceof SaqError && error.code === "config" ? error.cause : error;
  return isConnectionError(given) || (/^[0-9A-Z]{5}$/.test(codeOf(given) ?? "") && !isDataError(given));
}

function codeOf(error: unknown): string | null {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === "string" ? code : null;
}

/** Resolves after that time, or when the signal fires. */
export const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });

/** Closes the socket, without PostgreSQL's message of the end: what waits for an answer on it fails at once. */
export function closeSocket(client: pg.ClientBase): void {
  (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
}

/**
 * Says goodbye, and hangs up after that time, ms: `end` alone waits for an answer, which a half-open socket or a
 * server that stands still never gives, and a socket left open keeps the process.
 */
export async function hangUp(client: pg.ClientBase, patience: number): Promise<void> {
  const late = setTimeout(() => closeSocket(client), patience);
  await (client as pg.Client).end().catch(() => {});
  clearTimeout(late);
}
