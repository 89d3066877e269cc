/** The driver's settings for the connections of this engine. */
import type pg from "pg";
import { clientConfigs, parsePostgresAddress } from "../../postgres-address.js";
import type { ClientOptions } from "./client.js";
import { answerTimeoutMs, connectTimeoutMs, startupOptions } from "./session-settings.js";

export interface ClientKind {
  /** Send no start-up options of our own, because transaction poolers refuse them. */
  noStartupOptions: boolean;
  /** Further start-up options, as `-c name=value`. */
  extra?: string;
  /** The application's name in pg_stat_activity, unless the address or PGAPPNAME sets another one. */
  name?: string;
  /** ms; 0: no timeout. */
  queryTimeout?: number;
}

/**
 * Returns the client settings for a DSN. Settings in the address or in PG* variables override our defaults; start-up
 * options of both are sent together.
 *
 * @throws {AddressError} when the address, or a certificate file that it names, cannot be read
 */
export function clientConfig(
  dsn: string,
  // With a timeout by default, because a half-open socket never returns an answer.
  { noStartupOptions, extra = "", name = "saq", queryTimeout = answerTimeoutMs }: ClientKind,
): ClientOptions {
  const address = parsePostgresAddress(dsn);
  const options = noStartupOptions ? address.options : startupOptions(address.options ?? "", extra);
  const candidates = clientConfigs({ ...address, options: options || undefined }).map((candidate) => ({
    fallback_application_name: name,
    connectionTimeoutMillis: connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    query_timeout: queryTimeout,
    ...candidate,
  }));
  const [{ connectionTimeoutMillis = 0 } = {}] = candidates;
  return {
    ...candidates[0],
    // Each entry of `candidates` has the full time.
    connectionTimeoutMillis: connectionTimeoutMillis * candidates.length,
    candidates,
    targetSessionAttrs: address.targetSessionAttrs,
  };
}

/** Returns a statement with an answer timeout of its own (`ms`) instead of `answerTimeoutMs`. */
export const withAnswerTimeout = (text: string, ms: number): pg.QueryConfig =>
  Object.assign({ text }, { query_timeout: ms });
