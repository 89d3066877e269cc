/** What makes a connection of ours: the address with our session settings, and which errors mean "try again". */
import type pg from "pg";
import { clientConfigs, parsePostgresAddress } from "../postgres-address.js";
import type { ClientOptions } from "./client.js";

/**
 * Plans made while a table was empty are sequential scans and are kept for as long as the connection lives; every
 * statement of ours reads by index, so the other ways are ruled out (2,950 -> 10,378 round trips/s measured). And a
 * parameter in LIMIT would have the planner plan each claim anew (picking ten jobs: 298 -> 122 us measured).
 */
const planner =
  "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off " +
  "-c plan_cache_mode=force_generic_plan";

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
 * Client settings for a DSN. What the address or PG* variables say wins over our defaults; start-up options are sent
 * together, ours last.
 *
 * @throws {PostgresAddressError} when the address cannot be read
 */
export function clientConfig(
  dsn: string,
  // A half-open socket answers nothing for ever. Long enough for a database that was paused for 10 s.
  { plain, extra = "", name = "saq", queryTimeout = 30_000 }: ClientKind,
): ClientOptions {
  const address = parsePostgresAddress(dsn);
  const options = [address.options, ...(plain ? [] : [planner, extra])].filter(Boolean).join(" ");
  const ways = clientConfigs({ ...address, options: options || undefined }).map((way) => ({
    fallback_application_name: name,
    connectionTimeoutMillis: 5_000,
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
  // A standby: the server that was the primary before a failover.
  "25006",
]);

/** The connection or the server went away; the statement may or may not have been carried out. */
export function isConnectionError(error: unknown): boolean {
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

/** The data of one row is at fault, so that a smaller batch may pass: a bad value, a constraint, a limit. */
export function isDataError(error: unknown): boolean {
  const code = codeOf(error);
  return code !== null && /^(22|23|54)/.test(code);
}

/** Somebody's transaction holds a row that we wanted. */
export const isLockTimeout = (error: unknown): boolean => codeOf(error) === "55P03";

/** The role has not the right to do that. */
export const isRefused = (error: unknown): boolean => codeOf(error) === "42501";

/** A role's statement_timeout, or somebody's pg_cancel_backend. */
export const isCancelled = (error: unknown): boolean => codeOf(error) === "57014";

/**
 * The server or the way to it, not what was sent: what may be sent twice is worth sending again. Also a right that was
 * taken away, or a table: somebody may repair it, and a result that is given up is lost.
 */
export const isPassing = (error: unknown): boolean =>
  isConnectionError(error) || (/^[0-9A-Z]{5}$/.test(codeOf(error) ?? "") && !isDataError(error));

function codeOf(error: unknown): string | null {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === "string" ? code : null;
}

/** 0.1 s doubling to 5 s, each half random, so that many processes do not come back as one. */
export const backoffMs = (attempt: number): number =>
  Math.min(100 * 2 ** attempt, 5_000) * (0.5 + Math.random() / 2);

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

/**
 * Says goodbye, and hangs up after that time, ms: `end` alone waits for an answer, which a half-open socket or a
 * server that stands still never gives, and a socket left open keeps the process.
 */
export async function hangUp(client: pg.ClientBase, patience: number): Promise<void> {
  const { stream } = (client as unknown as { connection: { stream: { destroy(): void } } }).connection;
  const late = setTimeout(() => stream.destroy(), patience);
  await (client as pg.Client).end().catch(() => {});
  clearTimeout(late);
}
