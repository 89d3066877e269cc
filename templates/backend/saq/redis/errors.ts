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

/** Which server holds the queue's keys cannot be found at present. */
export class NoServerError extends Error {
  /** With a code, the log has the message and not the stack. */
  readonly code = "no_server";

  constructor(message: string) {
    super(message);
    this.name = "NoServerError";
  }
}

const classOf = (error: unknown): string => (error instanceof Error ? error.constructor.name : "");
const messageOf = (error: unknown): string => String((Object(error) as { message?: unknown }).message ?? "");

/** Returns what went wrong as a text. Node's error for a host with several addresses has a code and no message. */
export function reasonOf(error: unknown): string {
  if (classOf(error) === "DisconnectsClientError")
    return "the connection was closed, because the server did not respond or another one is to be used";
  return messageOf(error) || String((Object(error) as { code?: unknown }).code ?? "no connection");
}

/**
 * True if the server cannot be reached, or cannot work at present: it loads its data, or is a replica now, or the keys
 * are on another server.
 */
export function isUnavailable(error: unknown): boolean {
  if (error instanceof RedisTimeoutError || error instanceof NoServerError) return true;
  const { code } = Object(error) as { code?: unknown };
  if (connectionErrors.has(classOf(error))) return true;
  if (typeof code === "string" && /^E[A-Z]+$/.test(code)) return true;
  return isRefused(error) || isRedirect(error);
}

/** True if the server responds, but refuses this command at present. It may accept others, for instance reads. */
export const isRefused = (error: unknown): boolean =>
  isMisplaced(error) || isMigrating(error) || /^(LOADING|NOREPLICAS)\b/.test(messageOf(error));

/**
 * True if the server does not hold the keys any more, or cannot serve them: another one may do so. Redis 6.2 reports the
 * error of a script's command inside of a text.
 */
export const isMisplaced = (error: unknown): boolean =>
  /^(MASTERDOWN|READONLY|CLUSTERDOWN|UNBLOCKED)\b|-READONLY /.test(messageOf(error));

/**
 * True while a slot is moved between two nodes of a cluster and only some of the command's keys are there: neither node
 * can carry the command out.
 */
export const isMigrating = (error: unknown): boolean => /^TRYAGAIN\b/.test(messageOf(error));

/** True if a node of a cluster says that another one holds the command's keys. */
export const isRedirect = (error: unknown): boolean => /^(MOVED|ASK)\b/.test(messageOf(error));

/** True if the command was certainly not carried out. */
export const wasNotSent = (error: unknown): boolean =>
  classOf(error) === "ClientOfflineError" ||
  error instanceof NoServerError ||
  isMigrating(error) ||
  isRedirect(error) ||
  /^(LOADING|MASTERDOWN|READONLY|CLUSTERDOWN|NOREPLICAS|OOM|NOAUTH|NOPERM)\b|-READONLY /.test(
    messageOf(error),
  );

/** Returns the sentence that tells a user what is wrong with the server, or null for an unknown error. */
export function explanationOf(
  error: unknown,
  server: string,
  kind: "server" | "sentinel" = "server",
): string | null {
  const message = messageOf(error);
  if (/^WRONGPASS|invalid username-password/.test(message))
    return kind === "sentinel"
      ? `The Sentinel at ${server} refuses sentinel_username or sentinel_password of the DSN`
      : `Redis at ${server} refuses the user name or password of the DSN`;
  if (/^NOAUTH/.test(message))
    return kind === "sentinel"
      ? `The Sentinel at ${server} needs a password of its own; add ?sentinel_password=PASSWORD to the DSN`
      : `Redis at ${server} needs a password; write it into the DSN: redis://:PASSWORD@host`;
  if (/^NOPERM/.test(message)) return `The Redis user at ${server} may not do this: ${message.slice(7)}`;
  if (/^READONLY/.test(message))
    return `Redis at ${server} is a read-only replica; use the address of its primary`;
  if (/^OOM/.test(message)) return `Redis at ${server} has no memory left (maxmemory); nothing was stored`;
  if (/^(MOVED|ASK|CROSSSLOT)\b/.test(message)) {
    return (
      `Redis at ${server} belongs to a cluster; begin the DSN with redis+cluster:// (with TLS: rediss+cluster://) ` +
      "in place of redis://, and leave the database out"
    );
  }
  if (/^ERR DB index is out of range|invalid DB index/.test(message))
    return `Redis at ${server} has no database with the number in the DSN`;
  return null;
}

/** Returns the sentence that tells a user why the server cannot be used at present. */
export function unavailableText(error: unknown, server: string): string {
  const reason = reasonOf(error);
  if (/^CLUSTERDOWN/.test(reason)) {
    return (
      `The Redis cluster at ${server} is down: a part of its slots has no working master (${reason}). ` +
      '"redis-cli cluster info" and "redis-cli cluster nodes" on a node show which one'
    );
  }
  if (isMigrating(error))
    return `The Redis cluster at ${server} is moving the queue's keys to another node, and serves them only then`;
  if (/^NOREPLICAS/.test(reason)) {
    return (
      `Redis at ${server} accepts no writes, because fewer replicas than min-replicas-to-write are connected to it; ` +
      "nothing was stored"
    );
  }
  return `Redis at ${server} does not answer: ${reason}`;
}
