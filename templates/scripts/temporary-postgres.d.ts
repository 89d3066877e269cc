/**
 * Starts a throw-away PostgreSQL on a free port (superuser `postgres`, database `postgres`). It ends with `stop()` or
 * with the calling process, however that dies. `settings` are the server's own; without them durability is off.
 */
export function startTemporaryPostgres(options?: {
  settings?: Record<string, string>;
}): Promise<{ url: string; stop(): Promise<void> }>;
