import { format, types } from "node:util";

/** One level of a logger, in both call forms of pino. `values` replace `%s`, `%d` and the like in the message. */
export interface LogMethod {
  (message: string, ...values: unknown[]): void;
  /** `fields` may also be an Error. */
  (fields: object, message?: string, ...values: unknown[]): void;
}

/**
 * The methods of a logger that the engine uses. They have pino's shape, so that a pino instance can be passed as it is.
 */
export interface Logger {
  debug: LogMethod;
  info: LogMethod;
  warn: LogMethod;
  error: LogMethod;
  /** Returns a logger that adds `fields` to each of its lines. */
  child(fields: Record<string, unknown>): Logger;
  /** Returns whether lines of this level are written. If the method is missing, all levels count as enabled. */
  isLevelEnabled?(level: string): boolean;
}

/** The arguments of a `LogMethod`, as one tuple. */
export type LogArguments = [first: string | object, ...rest: unknown[]];

/**
 * Returns what a `LogMethod` call says, for loggers that keep or forward it. An Error is the field `err`, as in pino.
 */
export function readLogCall([first, ...rest]: LogArguments): { fields: object; message: string } {
  if (typeof first === "string") return { fields: {}, message: format(first, ...rest) };
  if (!types.isNativeError(first)) return { fields: first, message: rest.length > 0 ? format(...rest) : "" };
  return { fields: { err: first }, message: rest.length > 0 ? format(...rest) : first.message };
}

/** A logger that writes nothing. It is the default if no logger is given. */
export const silentLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLogger,
  isLevelEnabled: () => false,
};

/** Messages of the database driver about lost connections, which have no code. */
const driverMessages = /^Connection terminated|^timeout exceeded when trying to connect|^Query read timeout/;

/**
 * Returns the fields of a log line about a failure. An error with a code came from outside, from a database or network
 * that is unreachable. Its stack explains nothing, and when every periodic task fails at once, the stacks would hide
 * the lines that matter.
 */
export function describe(error: unknown): { err: unknown } | { reason: string } {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  const isOutside = typeof code === "string" || driverMessages.test(String(message));
  return isOutside ? { reason: String(message || code) } : { err: error };
}

/**
 * Returns the same logger with methods that never throw: a full disk or a broken transport must not end a worker, or
 * leave a running job uncounted.
 */
export function neverThrowing(logger: Logger): Logger {
  const guarded =
    (level: "debug" | "info" | "warn" | "error") =>
    (...call: LogArguments) => {
      try {
        (logger[level] as (...call: LogArguments) => void)(...call);
      } catch {
        // There is no place left to report this error to.
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
