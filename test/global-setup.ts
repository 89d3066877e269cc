import { startTemporaryPostgres } from "../templates/scripts/temporary-postgres.js";
import { openRunFolder } from "./support/run-folder.js";

declare global {
  var stopTestPostgres: (() => Promise<void>) | undefined;
}

/** One PostgreSQL for the whole run. TEST_DATABASE_URL names another server instead; tests make databases of their own in it. */
export default async function globalSetup(): Promise<void> {
  openRunFolder();
  if (process.env.TEST_DATABASE_URL) return;
  const postgres = await startTemporaryPostgres();
  process.env.TEST_DATABASE_URL = postgres.url;
  globalThis.stopTestPostgres = postgres.stop;
}
