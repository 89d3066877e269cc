import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTemporaryPostgres } from "../templates/scripts/temporary-postgres.js";

declare global {
  var stopTestPostgres: (() => Promise<void>) | undefined;
}

/**
 * Creates one temporary folder and one PostgreSQL server for the whole run. If TEST_DATABASE_URL names a server, that
 * one is used. The tests create their own databases in it. The first test that needs Redis starts it
 * (test/support/redis.ts).
 */
export default async function globalSetup(): Promise<void> {
  process.env.TEST_RUN_FOLDER = mkdtempSync(join(tmpdir(), "create-saq-app-test-"));
  process.env.TEST_RUN_PID = String(process.pid);
  if (process.env.TEST_DATABASE_URL) return;
  const postgres = await startTemporaryPostgres();
  process.env.TEST_DATABASE_URL = postgres.url;
  process.env.TEST_DATABASE_ENDS = "with the run";
  globalThis.stopTestPostgres = postgres.stop;
}
