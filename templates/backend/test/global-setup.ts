import { startTemporaryPostgres } from "../../scripts/temporary-postgres.js";

declare global {
  var stopTestPostgres: (() => Promise<void>) | undefined;
}

/** Starts one PostgreSQL for the whole run, which is deleted afterwards, unless TEST_DATABASE_URL names a server. */
export default async function globalSetup(): Promise<void> {
  if (process.env.TEST_DATABASE_URL) return;
  const postgres = await startTemporaryPostgres();
  process.env.TEST_DATABASE_URL = postgres.url;
  process.env.TEST_DATABASE_ENDS = "with the run";
  globalThis.stopTestPostgres = postgres.stop;
}
