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
    super(`there was no response within ${seconds} s`);
    this.name = "RedisTimeoutError";
  }
}

/** The server that holds the queue's keys cannot be found at present. */
export class NoServerError extends Error {
  /** With a code, the log has the message and not the stack. */
  readonly code = "no_server";

  constructor(message: string) {
    super(message);
    this.name = "NoServerError";
  }
}

const classOf = (error: unknown): string => (error instanceof Error ? error.constructor.name : "");
/** Redis 6.2 reports the error of a script's command inside of a text: "ERR Error running script ...: -MISCONF ...". */
const insideOfScript =
  /^ERR Error running script.*?: -?((?:READONLY|MISCONF|OOM|NOREPLICAS|MASTERDOWN)\b.*)/s;

function messageOf(error: unknown): string {
  const message = String((Object(error) as { message?: unknown }).message ?? "");
  return insideOfScript.exec(message)?.[1] ?? message;
}
function codeOf(error: unknown): string {
  const { code } = Object(error) as { code?: unknown };
  return typeof code === "string" ? code : "";
}

/** Returns what went wrong as a text. Node's error for a host with several addresses has a code and no message. */
export function reasonOf(error: unknown): string {
  if (classOf(error) === "DisconnectsClientError")
    return "the connection was closed, because the server did not respond or another one is to be used";
  return messageOf(error) || codeOf(error) || "no connection";
}

/** Codes of the operating system and of the DNS, such as ECONNRESET and EAI_AGAIN. Node's own begin with ERR_. */
const systemError = /^E(?!RR_)[A-Z_]+$/;

/**
 * True if the server cannot be reached, or cannot work at present, or the keys are on another server. The same command
 * may succeed later.
 */
export function isUnavailable(error: unknown): boolean {
  if (error instanceof RedisTimeoutError || error instanceof NoServerError) return true;
  if (connectionErrors.has(classOf(error)) || systemError.test(codeOf(error))) return true;
  return (
    isRefused(error) ||
    isRedirect(error) ||
    /^(LOADING|BUSY)\b|^ERR max number of clients/.test(messageOf(error))
  );
}

/** True if the server responds, but refuses this command at present. It may accept others, for instance reads. */
export const isRefused = (error: unknown): boolean =>
  isMisplaced(error) || isMigrating(error) || /^(MISCONF|NOREPLICAS)\b/.test(messageOf(error));

/** True if the server does not hold the keys any more, or cannot serve them: another one may do so. */
export const isMisplaced = (error: unknown): boolean =>
  /^(MASTERDOWN|READONLY|CLUSTERDOWN|UNBLOCKED)\b/.test(messageOf(error));

/**
 * True while a slot is moved between two nodes of a cluster and only some of the command's keys are there: neither node
 * can carry the command out.
 */
export const isMigrating = (error: unknown): boolean => /^TRYAGAIN\b/.test(messageOf(error));

/** True if a node of a cluster says that another one holds the command's keys. */
export const isRedirect = (error: unknown): boolean => /^(MOVED|ASK)\b/.test(messageOf(error));

/**
 * True if the server itself says that it serves no process at present: it loads its data, runs a long script, or
 * accepts no writes.
 */
export const isOutOfService = (error: unknown): boolean =>
  /^(LOADING|BUSY|MISCONF|NOREPLICAS)\b/.test(messageOf(error));

/** True if the server accepts no more connections. It works for the processes that have one. */
export const isFull = (error: unknown): boolean => /^ERR max number of clients/.test(messageOf(error));

/** True if the error shows that no process can use the server: it is down or out of service. */
export const isServerDown = (error: unknown): boolean =>
  ["ECONNREFUSED", "ENOENT"].includes(codeOf(error)) ||
  isOutOfService(error) ||
  /^MASTERDOWN\b/.test(messageOf(error));

/** True if the other side has accepted the connection and has not answered, or has closed it instead. */
export const isSilent = (error: unknown): boolean =>
  error instanceof RedisTimeoutError ||
  classOf(error) === "SocketClosedUnexpectedlyError" ||
  codeOf(error) === "ECONNRESET";

/** False if the error says only that the client has no connection, and not why. */
export const hasReason = (error: unknown): boolean =>
  !["ClientClosedError", "ClientOfflineError", "DisconnectsClientError"].includes(classOf(error));

/** True if the user of the DSN may not send the command. The error may have been explained. */
export const isNotPermitted = (error: unknown): boolean =>
  [error, (Object(error) as { cause?: unknown }).cause].some((one) => /^NOPERM/.test(messageOf(one)));

/** True if the server has no memory for the command. It may have memory later, so the settings are not wrong. */
export const isOutOfMemory = (error: unknown): boolean => /^OOM\b/.test(messageOf(error));

/** True if the command was certainly not carried out. */
export const wasNotSent = (error: unknown): boolean =>
  classOf(error) === "ClientOfflineError" ||
  error instanceof NoServerError ||
  ["ECONNREFUSED", "ENOENT", "ENOTFOUND", "EAI_AGAIN"].includes(codeOf(error)) ||
  isMigrating(error) ||
  isRedirect(error) ||
  /^(LOADING|BUSY|MASTERDOWN|READONLY|MISCONF|CLUSTERDOWN|NOREPLICAS|OOM|NOAUTH|NOPERM)\b/.test(
    messageOf(error),
  );

/** What the errors of a server mean, and what to do. */
const explanations: readonly [pattern: RegExp, explain: (server: string, message: string) => string][] = [
  [
    /^WRONGPASS|invalid username-password/,
    (server) => `Redis at ${server} refuses the user name or password of the DSN`,
  ],
  [
    /^ERR (AUTH .* without any password|Client sent AUTH, but no password)/,
    (server) => `Redis at ${server} has no password, but the DSN has one; remove it from the DSN`,
  ],
  [
    /^NOAUTH|NOAUTH Authentication required/,
    (server) => `Redis at ${server} needs a password; write it into the DSN: redis://:PASSWORD@host`,
  ],
  [
    /^NOPERM/,
    (server, message) =>
      `The Redis user at ${server} may not do this: ${message.slice(7)}. What a user needs: ` +
      "ACL SETUSER name +@all -@admin -@dangerous ~saq:* &saq:*",
  ],
  [
    /^(MOVED|ASK|CROSSSLOT)\b/,
    (server) =>
      `Redis at ${server} belongs to a cluster; begin the DSN with redis+cluster:// (with TLS: rediss+cluster://) ` +
      "in place of redis://, and leave the database out",
  ],
  [
    /^CLUSTERDOWN/,
    (server, message) =>
      `The Redis cluster at ${server} is down: a part of its slots has no working master (${message}). ` +
      '"redis-cli cluster info" and "redis-cli cluster nodes" on a node show which one',
  ],
  [
    /^TRYAGAIN/,
    (server) =>
      `The Redis cluster at ${server} is moving the queue's keys to another node, and serves them only then`,
  ],
  [
    /^NOREPLICAS/,
    (server) =>
      `Redis at ${server} accepts no writes, because fewer replicas than min-replicas-to-write are connected to it; ` +
      "nothing was stored",
  ],
  [/^READONLY/, (server) => `Redis at ${server} is a read-only replica; use the address of its primary`],
  [
    /^MASTERDOWN/,
    (server) => `Redis at ${server} is a replica that has lost its primary; use the primary's address`,
  ],
  [/^LOADING/, (server) => `Redis at ${server} still loads its data; wait until it has loaded them`],
  [
    /^BUSY\b/,
    (server) =>
      `Redis at ${server} is busy with a Lua script or function of some program, which has run for longer than ` +
      'busy-reply-threshold; if it does not end, end it with "redis-cli SCRIPT KILL" or "redis-cli FUNCTION KILL"',
  ],
  [
    /^MISCONF/,
    (server) =>
      `Redis at ${server} accepts no writes, because it cannot save its data on its disk; see its log`,
  ],
  [
    /^OOM/,
    (server) =>
      `Redis at ${server} has no memory left, so nothing was stored; raise its maxmemory, or delete finished jobs`,
  ],
  [
    /^ERR max number of clients/,
    (server) => `Redis at ${server} accepts no more connections; raise its maxclients`,
  ],
  [
    /^ERR DB index is out of range|invalid DB index/,
    (server) => `Redis at ${server} has no database with the number in the DSN; see its setting "databases"`,
  ],
  [
    /^Unknown RESP type/,
    (server) =>
      `The server at ${server} is not Redis: it answers in another protocol; correct the host or port of the DSN`,
  ],
];

/** What the errors of a Sentinel mean. It has a login of its own. */
const sentinelExplanations: typeof explanations = [
  [
    /^WRONGPASS|invalid username-password/,
    (server) => `The Sentinel at ${server} refuses sentinel_username or sentinel_password of the DSN`,
  ],
  [
    /^NOAUTH|NOAUTH Authentication required/,
    (server) =>
      `The Sentinel at ${server} needs a password of its own; add ?sentinel_password=PASSWORD to the DSN`,
  ],
  [
    /^NOPERM/,
    (server, message) =>
      `The user of the Sentinel at ${server} may not do this: ${message.slice(7)}. What it needs: ` +
      "ACL SETUSER name +sentinel|get-master-addr-by-name +sentinel|masters",
  ],
];

/** Node's codes for a certificate that cannot be trusted. */
const certificateCodes = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS_CERT)/;

/**
 * Returns the sentence that tells a user what is wrong with the server, or null for an unknown error.
 *
 * `role`: "member" is a server that Sentinels or a cluster have named; that it is a replica now is no fault of the DSN.
 */
export function explanationOf(
  error: unknown,
  server: string,
  role: "single" | "member" | "sentinel" = "single",
): string | null {
  const message = messageOf(error);
  if (role === "member" && /^(READONLY|MASTERDOWN)\b/.test(message)) return null;
  const code = codeOf(error);
  if (certificateCodes.test(code))
    return (
      `The certificate of Redis at ${server} cannot be trusted (${message}); name the certificate of its authority ` +
      "in the DSN: ?ca=FILE"
    );
  if (code.startsWith("ERR_SSL_")) {
    const { reason } = Object(error) as { reason?: unknown };
    return (
      `The TLS connection to Redis at ${server} failed: ${reason ?? code}. Does the server speak TLS (rediss://)? ` +
      "Does it ask for a certificate (?cert=FILE&key=FILE)?"
    );
  }
  const own = role === "sentinel" ? sentinelExplanations : [];
  const [, explain] = [...own, ...explanations].find(([pattern]) => pattern.test(message)) ?? [];
  return explain?.(server, message) ?? null;
}
