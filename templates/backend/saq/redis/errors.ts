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

/** Errors of a server that cannot work at present: it loads its data, is a replica now, or cannot save its data. */
const passing =
  /^(LOADING|MASTERDOWN|READONLY|MISCONF|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|UNBLOCKED)\b|^ERR max number of clients/;

const classOf = (error: unknown): string => (error instanceof Error ? error.constructor.name : "");
const messageOf = (error: unknown): string => String((Object(error) as { message?: unknown }).message ?? "");
function codeOf(error: unknown): string {
  const { code } = Object(error) as { code?: unknown };
  return typeof code === "string" ? code : "";
}

/** True if the server cannot be reached, or cannot work at present. The same command may succeed later. */
export function isUnavailable(error: unknown): boolean {
  if (error instanceof RedisTimeoutError || connectionErrors.has(classOf(error))) return true;
  return /^E[A-Z]+$/.test(codeOf(error)) || passing.test(messageOf(error));
}

/** True if the error shows that no process can use the server: it is down, loads its data or accepts no writes. */
export const isServerDown = (error: unknown): boolean =>
  ["ECONNREFUSED", "ENOENT"].includes(codeOf(error)) ||
  /^(LOADING|MASTERDOWN|MISCONF)\b/.test(messageOf(error));

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
  /^(LOADING|MASTERDOWN|READONLY|MISCONF|CLUSTERDOWN|OOM|NOAUTH|NOPERM)\b/.test(messageOf(error));

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
  [/^READONLY/, (server) => `Redis at ${server} is a read-only replica; use the address of its primary`],
  [
    /^MASTERDOWN/,
    (server) => `Redis at ${server} is a replica that has lost its primary; use the primary's address`,
  ],
  [/^LOADING/, (server) => `Redis at ${server} still loads its data; wait until it has loaded them`],
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

/** Node's codes for a certificate that cannot be trusted. */
const certificateCodes = /^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS_CERT)/;

/** Returns the sentence that tells a user what is wrong with the server, or null for an unknown error. */
export function explanationOf(error: unknown, server: string): string | null {
  const message = messageOf(error);
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
  return explanations.find(([pattern]) => pattern.test(message))?.[1](server, message) ?? null;
}
