/** What the engine needs of a logger; pino's shape, so that a pino instance fits as it is. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: Record<string, unknown>): Logger;
  isLevelEnabled?(level: string): boolean;
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
  const guarded = (level: "debug" | "info" | "warn" | "error") => (fields: object, message: string) => {
    try {
      logger[level](fields, message);
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
