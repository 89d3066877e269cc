/** What an error of Redis or of its client means. */

/** The client's errors for a connection that is not there, or was lost. */
const connectionErrors = new Set([
  "AbortError",
  "ClientClosedError",
  "ClientOfflineError",
  "ConnectionTimeoutError",
  "DisconnectsClientError",
  "ReconnectStrategyError",
  "SocketClosedUnexpectedlyError",
  "SocketTimeoutError",
  "TimeoutError",
]);

/** The server did not respond in time; the connection was replaced. The command may have been carried out. */
export class RedisTimeoutError extends Error {
  constructor(seconds: number) {
    super(`Redis did not respond within ${seconds} s`);
    this.name = "RedisTimeoutError";
  }
}

/** True if the server cannot be reached, or cannot work at present: it loads its data, or is a replica now. */
export function isUnavailable(error: unknown): boolean {
  if (error instanceof RedisTimeoutError) return true;
  const { code, message = "" } = Object(error) as { code?: unknown; message?: string };
  if (connectionErrors.has(classOf(error))) return true;
  if (typeof code === "string" && /^E[A-Z]+$/.test(code)) return true;
  return /^(LOADING|MASTERDOWN|READONLY|CLUSTERDOWN|TRYAGAIN|UNBLOCKED)\b/.test(message);
}

/** True if the error shows that the server is down for all processes: nobody listens, or it loads its data. */
export function isServerDown(error: unknown): boolean {
  const { code, message = "" } = Object(error) as { code?: unknown; message?: string };
  return code === "ECONNREFUSED" || code === "ENOENT" || /^(LOADING|MASTERDOWN)\b/.test(message);
}

const classOf = (error: unknown): string => (error instanceof Error ? error.constructor.name : "");

/** True if the user of the DSN may not send the command. The error may have been explained. */
export const isNotPermitted = (error: unknown): boolean =>
  [error, (Object(error) as { cause?: unknown }).cause].some((one) =>
    /^NOPERM/.test(String(Object(one).message)),
  );

/** True if the command was certainly not carried out. */
export const wasNotSent = (error: unknown): boolean =>
  classOf(error) === "ClientOfflineError" ||
  /^(LOADING|MASTERDOWN|READONLY|CLUSTERDOWN|OOM|NOAUTH|NOPERM)\b/.test(String(Object(error).message));

/** Returns the sentence that tells a user what is wrong with the server, or null for an unknown error. */
export function explanationOf(error: unknown, server: string): string | null {
  const message = String((Object(error) as { message?: unknown }).message ?? "");
  if (/^WRONGPASS|invalid username-password/.test(message))
    return `Redis at ${server} refuses the user name or password of the DSN`;
  if (/^NOAUTH/.test(message))
    return `Redis at ${server} needs a password; write it into the DSN: redis://:PASSWORD@host`;
  if (/^NOPERM/.test(message)) return `The Redis user at ${server} may not do this: ${message.slice(7)}`;
  if (/^READONLY/.test(message))
    return `Redis at ${server} is a read-only replica; use the address of its primary`;
  if (/^OOM/.test(message)) return `Redis at ${server} has no memory left (maxmemory); nothing was stored`;
  if (/^ERR DB index is out of range|invalid DB index/.test(message))
    return `Redis at ${server} has no database with the number in the DSN`;
  return null;
}
