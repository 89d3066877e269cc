/**
 * Starts a temporary PostgreSQL on a free port (superuser `postgres`, database `postgres`). The server stops with
 * `stop()`, or when the calling process ends for any reason. `settings` are server settings; if they are not given,
 * durability is off.
 */
export function startTemporaryPostgres(options?: {
  settings?: Record<string, string>;
}): Promise<{ url: string; stop(): Promise<void> }>;
