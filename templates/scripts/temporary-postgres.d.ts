/**
 * Starts a throw-away PostgreSQL on a free port (durability off, superuser `postgres`, database `postgres`). It ends with
 * `stop()` or with the calling process, however that dies.
 */
export function startTemporaryPostgres(): Promise<{ url: string; stop(): Promise<void> }>;
