/** What makes a connection of ours: the address with our session settings, and which errors mean "try again". */
import type pg from "pg";

/**
 * Plans made while a table was empty are sequential scans and are kept for as long as the connection lives; every
 * statement of ours reads by index, so the other ways are ruled out (2,950 -> 10,378 round trips/s measured). And a
 * parameter in LIMIT would have the planner plan each claim anew (picking ten jobs: 298 -> 122 us measured).
 */
const planner =
  "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off " +
  "-c plan_cache_mode=force_generic_plan";

/** Client settings for a DSN. `plain` sends no start-up options, which transaction poolers refuse. */
export function clientConfig(
  dsn: string,
  { plain, extra = "" }: { plain: boolean; extra?: string },
): pg.ClientConfig {
  const url = new URL(dsn);
  if (!plain) {
    // pg takes `options` from the address before those given beside it: join both in the address.
    const own = url.searchParams.get("options") ?? "";
    url.searchParams.set("options", [own, planner, extra].filter(Boolean).join(" "));
  }
  return {
    connectionString: url.href,
    fallback_application_name: "saq",
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    // A half-open socket answers nothing for ever. Long enough for a database that was paused for 10 s.
    query_timeout: 30_000,
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
  "53300",
]);

/** The connection or the server went away; the statement may or may not have been carried out. */
export function isConnectionError(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error instanceof AggregateError) return error.errors.some(isConnectionError);
  const { code } = error as { code?: unknown };
  if (typeof code === "string" && (connectionCodes.has(code) || code.startsWith("08"))) return true;
  return /Connection terminated|timeout exceeded when trying to connect|Query read timeout|not queryable/i.test(
    error.message,
  );
}

/** The data of one row is at fault, so that a smaller batch may pass: bad value, constraint, limit, or a held lock. */
export function isDataError(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === "string" && (/^(22|23|54)/.test(code) || code === "55P03");
}

/** 0.1 s doubling to 5 s, each half random, so that many processes do not come back as one. */
export const backoffMs = (attempt: number): number =>
  Math.min(100 * 2 ** attempt, 5_000) * (0.5 + Math.random() / 2);

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The channel of a queue, cut to PostgreSQL's 63 bytes on a character boundary (P-20). */
export function channelOf(queueName: string): string {
  let channel = "";
  let bytes = 0;
  for (const character of `saq:${queueName}`) {
    bytes += Buffer.byteLength(character);
    if (bytes > 63) break;
    channel += character;
  }
  return channel;
}
