// Starts the database of a run: a separate embedded PostgreSQL with every durability setting on, or the server of
// BENCH_DATABASE_URL.
import fs from "node:fs";
import path from "node:path";
import pg from "pg";
import { prepareBinaries } from "../templates/scripts/postgres-binaries.js";
import { startTemporaryPostgres } from "../templates/scripts/temporary-postgres.js";

/** Settings that avoid a checkpoint during a measurement. It would slow down one contestant and not the others. */
const SETTINGS = {
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  shared_buffers: "512MB",
  max_wal_size: "4GB",
  checkpoint_timeout: "30min",
};

/**
 * Settings that load pg_stat_statements but keep it off until a scenario counts statements. It costs more for
 * contestants that send more statements.
 */
const COUNTING = {
  shared_preload_libraries: "pg_stat_statements",
  "pg_stat_statements.track": "none",
  compute_query_id: "off",
};

const SHOWN = [
  "server_version",
  "fsync",
  "synchronous_commit",
  "full_page_writes",
  "wal_sync_method",
  "shared_buffers",
  "max_wal_size",
];

/** Starts the server if necessary. Returns its address and a function that stops it. */
export async function startDatabase() {
  const given = process.env.BENCH_DATABASE_URL;
  if (given) return { url: given, stop: async () => {} };
  return startTemporaryPostgres({ settings: { ...SETTINGS, ...(hasCounting() ? COUNTING : {}) } });
}

function hasCounting() {
  const libraries = path.join(path.dirname(prepareBinaries(undefined).bin("postgres")), "../lib/postgresql");
  return fs.readdirSync(libraries).some((file) => file.startsWith("pg_stat_statements."));
}

/** Creates an empty database for one contestant, in place of an existing one. Returns its address. */
export async function createDatabase(serverUrl, name) {
  await dropDatabase(serverUrl, name);
  await withClient(serverUrl, (client) => client.query(`create database ${pg.escapeIdentifier(name)}`));
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
}

export const dropDatabase = (serverUrl, name) =>
  withClient(serverUrl, (client) =>
    client.query(`drop database if exists ${pg.escapeIdentifier(name)} with (force)`),
  );

/** Returns the server's settings that the figures depend on. */
export const readSettings = (serverUrl) =>
  withClient(serverUrl, async (client) => {
    const { rows } = await client.query(
      "select name, current_setting(name) as value from unnest($1::text[]) as name",
      [SHOWN],
    );
    return Object.fromEntries(rows.map(({ name, value }) => [name, value]));
  });

export async function withClient(url, work) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
