/**
 * Prints start errors that a person can fix, such as a port in use, as one sentence; other errors keep their stack.
 * Every process imports this module first, because the settings are checked while the other modules load.
 */
import { ConfigError, SaqError } from "../saq/index.js";
import { isDatabaseUnavailable, SettingsError } from "./errors.js";

process.on("uncaughtException", (error) => {
  // A running worker has its own handler, which settles its jobs before the process ends.
  if (process.listenerCount("uncaughtException") > 1) return;
  printStartError(error);
  process.exit(1);
});

export function printStartError(error: unknown): void {
  process.stderr.write(`${explain(error)}\n`);
}

function explain(error: unknown): string {
  if (error instanceof SettingsError || error instanceof ConfigError) return error.message;
  // The message contains the error of the worker process, with its stack if it is a bug.
  if (error instanceof SaqError && error.code === "worker_failed") return error.message;
  const { code, port, message } = error as NodeJS.ErrnoException & { port?: number };
  switch (code) {
    case "EADDRINUSE":
      return `Port ${port} is taken by another program. Stop that program, or set PORT in .env to another port.`;
    case "EACCES":
      if (port === undefined) break;
      return `Port ${port} is reserved for the administrator. Set PORT in .env to 1024 or more.`;
    case "28P01":
    case "28000":
    case "3D000":
      return (
        `The database refuses the connection: ${message}. ` +
        "Run `make db-start`, or correct DATABASE_URL (QUEUE_DSN) in .env."
      );
  }
  if (isDatabaseUnavailable(error)) {
    return `${message}. Start it with: make ${message.startsWith("Redis ") ? "redis-start" : "db-start"}`;
  }
  return error instanceof Error ? (error.stack ?? String(error)) : String(error);
}
