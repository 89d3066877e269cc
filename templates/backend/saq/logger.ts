import { format, types } from "node:util";

/** One level of a logger, in both call forms of pino. `values` replace `%s`, `%d` and the like in the message. */
export interface LogMethod {
  (message: string, ...values: unknown[]): void;
  /** `fields` may also be an Error. */
  (fields: object, message?: string, ...values: unknown[]): void;
}

/** What the engine needs of a logger; pino's shape, so that a pino instance fits as it is. */
export interface Logger {
  debug: LogMethod;
  info: LogMethod;
  warn: LogMethod;
  error: LogMethod;
  child(fields: Record<string, unknown>): Logger;
  isLevelEnabled?(level: string): boolean;
}

/** The arguments of a `LogMethod`, as one record. */
export type LogArguments = [first: string | object, ...rest: unknown[]];

/** What a call of a `LogMethod` says, for loggers that keep or forward it. An Error is the field `err`, as in pino. */
export function readLogCall([first, ...rest]: LogArguments): { fields: object; message: string } {
  if (typeof first === "string") return { fields: {}, message: format(first, ...rest) };
  if (!types.isNativeError(first)) return { fields: first, message: rest.length > 0 ? format(...rest) : "" };
  return { fields: { err: first }, message: rest.length > 0 ? format(...rest) : first.message };
}

/** Says nothing. The default of a queue that only enqueues. */
export const silentLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLogger,
  isLevelEnabled: () => false,
};

/** What the database's driver says without a code. */
const codeless = /^Connection terminated|^timeout exceeded when trying to connect|^Query read timeout/;

/**
 * Fields of a log line about a failure. One that carries a code came from outside, a database or network that is away:
 * its stack tells nothing, and with every chore failing at once it would bury what does.
 */
export function describe(error: unknown): { err: unknown } | { reason: string } {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  const isOutside = typeof code === "string" || codeless.test(String(message));
  return isOutside ? { reason: String(message || code) } : { err: error };
}

/**
 * The same logger, whose failures stay its own: a full disk or a broken transport must not end a worker, nor leave a
 * job running that nobody counts any more.
 */
export function neverThrowing(logger: Logger): Logger {
  const guarded =
    (level: "debug" | "info" | "warn" | "error") =>
    (...call: LogArguments) => {
      try {
        (logger[level] as (...call: LogArguments) => void)(...call);
      } catch {
        // Nobody is left to tell.
      }
    };
  const { isLevelEnabled } = logger;
  return {
    debug: guarded("debug"),
    info: guarded("info"),
    warn: guarded("warn"),
    error: guarded("error"),
    child: (fields) => neverThrowing(logger.child(fields)),
    ...(isLevelEnabled && { isLevelEnabled: (level: string) => isLevelEnabled.call(logger, level) }),
  };
}
