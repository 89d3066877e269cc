/**
 * Creates SAQ's tables at version 3 where they are missing, so that Python and TypeScript share one database. Alters
 * only tables that it has just created and tables that are older than version 3.
 */

import type { ClientBase } from "pg";
import { SaqError } from "../../errors.js";
import { type Logger, silentLogger } from "../../logger.js";
import { sleep } from "../../timers.js";
import { withAnswerTimeout } from "../connection/client-settings.js";
import { isRefused } from "../connection/errors.js";
import { beginTransaction, migrationTimeoutMs } from "../connection/session-settings.js";
import { ensureFunctions } from "./functions.js";
import { createJobs, createStats, indexName, upgradeJobs } from "./layout.js";
import { keyspace, type Names, namesIn, quote, saqTables, type TableSet } from "./names.js";

/** The version of SAQ's tables. It covers no table of our own: saq_cron records its own version. */
export const schemaVersion = 3;

export interface SchemaOptions {
  tables: TableSet;
  /** First key of the advisory lock under which the tables are created, SAQ's set-up lock. The second key is 0. */
  lockKeyspace: number;
  /** True behind a transaction pooler: the next statement on a connection may run in another session. */
  behindPooler: boolean;
  logger: Logger;
}

/** How long we wait for the holder of the set-up lock to create missing tables of SAQ's own names, ms. */
const lockWaitMs = 5_000;
/** How long we wait for the holder of the set-up lock to upgrade older tables, ms. */
const upgradeWaitMs = 30_000;

/**
 * Creates the tables where they are missing and returns their names. Safe when many processes start at once.
 *
 * A Python process holds the set-up lock as long as it lives, whatever its tables and its schema. So a held lock does
 * not prove that another process is creating the tables. Tables that are missing while the lock is held are created
 * anyway: at once if they are not SAQ's usual tables, otherwise after 5 s.
 *
 * @throws SaqError config when the database is not in UTF8; schema_version when its tables are newer than this engine,
 * or older or incomplete while another process holds the set-up lock for 30 s
 */
export async function ensureSchema(
  client: ClientBase,
  {
    tables = saqTables,
    lockKeyspace = keyspace.saq,
    behindPooler = false,
    logger = silentLogger,
  }: Partial<SchemaOptions> = {},
): Promise<Names> {
  await checkEncoding(client);
  const schema = await findSchema(client, tables);
  const names = namesIn(schema, tables);
  const began = performance.now();
  for (;;) {
    const found = await readVersion(client, names);
    if (found === schemaVersion) break;
    if (found > schemaVersion) {
      throw new SaqError(
        "schema_version",
        `The SAQ tables in schema "${schema}" have version ${found}, but this engine supports version ` +
          `${schemaVersion}. ` +
          "A newer SAQ uses this database: update this application, or give it a database of its own (QUEUE_DSN).",
      );
    }
    if (await tryToMigrate(client, names, { lock: [lockKeyspace, 0] })) break;
    const waited = performance.now() - began;
    const wait = isDefault(tables) ? lockWaitMs : 0;
    if (waited >= wait && (await tryToMigrate(client, names, { lock: ownLock, onlyMissing: true }))) continue;
    if (waited > upgradeWaitMs) throw await lockHeldError(client, names, { found, lockKeyspace });
    await sleep(200);
  }
  const found = { ...names, ...(await findOrders(client, names)) };
  return ensureFunctions(client, found, { behindPooler, logger });
}

const ownLock: Lock = [keyspace.sweep, 1];

/** True for SAQ's default tables: a Python process would create these too when it starts, under the set-up lock. */
const isDefault = ({ schema, jobs, stats, versions }: TableSet): boolean =>
  schema === null && jobs === saqTables.jobs && stats === saqTables.stats && versions === saqTables.versions;

/** @throws SaqError config */
async function checkEncoding(client: ClientBase): Promise<void> {
  const { rows } = await client.query<{ encoding: string; name: string }>(
    "select pg_catalog.current_setting('server_encoding') as encoding, current_database() as name",
  );
  const [{ encoding, name } = { encoding: "", name: "" }] = rows;
  if (encoding === "UTF8") return;
  throw new SaqError(
    "config",
    `Database ${quote(name)} has the encoding ${encoding}, which cannot store most texts of jobs. The queue needs a ` +
      "database in UTF8: create database NAME encoding 'UTF8' template template0;",
  );
}

/**
 * The error for tables that are incomplete or older than version 3 and that the holder of the set-up lock did not
 * upgrade in time.
 */
async function lockHeldError(
  client: ClientBase,
  { schema }: Names,
  { found, lockKeyspace }: { found: number; lockKeyspace: number },
): Promise<SaqError> {
  const { rows } = await client.query<{ pid: number; name: string | null }>(
    `select l.pid, a.application_name as name from pg_locks l left join pg_stat_activity a on a.pid = l.pid
     where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.objid = 0 and l.classid::bigint = $1::bigint
       and l.database = (select d.oid from pg_database d where d.datname = current_database())`,
    // pg_locks shows the key as an oid, which has no sign.
    [lockKeyspace < 0 ? lockKeyspace + 2 ** 32 : lockKeyspace],
  );
  const holders = rows.map(({ pid, name }) => `${pid}${name ? ` (${name})` : ""}`).join(", ");
  return new SaqError(
    "schema_version",
    `The SAQ tables in schema "${schema}" are incomplete or have version ${found}, and could not be upgraded to ` +
      `version ${schemaVersion} within ${upgradeWaitMs / 1_000} s: the set-up lock (${lockKeyspace}, 0) is held by ` +
      `server process ${holders || "(unknown)"}. A Python SAQ holds it as long as it runs: stop it, start this ` +
      "application once, then start Python again; or update it to SAQ 0.26.1 or later, which upgrades the tables " +
      "itself.",
  );
}

/** Returns the names of the tables and their version; version 0 when a table is missing. Changes nothing. */
export async function findTables(
  client: ClientBase,
  tables: TableSet,
): Promise<{ names: Names; version: number }> {
  const names = namesIn(await findSchema(client, tables), tables);
  return { names, version: await readVersion(client, names) };
}

/** Returns which indexes there are that SAQ's own tables lack. */
async function findOrders(
  client: ClientBase,
  { schema, tables }: Names,
): Promise<Pick<Names, "hasGroupOrder" | "hasFailedOrder">> {
  const groupOrder = indexName(tables.jobs, "ready_group_order");
  const failedOrder = indexName(tables.jobs, "failed");
  const { rows } = await client.query<{ name: string }>(
    `select c.relname as name from pg_index i join pg_class c on c.oid = i.indexrelid
       join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = any($2::text[]) and i.indisvalid`,
    [schema, [groupOrder, failedOrder]],
  );
  const names = rows.map(({ name }) => name);
  return { hasGroupOrder: names.includes(groupOrder), hasFailedOrder: names.includes(failedOrder) };
}

/**
 * Returns the schema of the tables: the one that is configured, else the one in which the jobs table is visible, else
 * the first schema of the search path.
 *
 * @throws SaqError config when the configured schema does not exist, or the search path names no existing schema
 */
async function findSchema(client: ClientBase, tables: TableSet): Promise<string> {
  if (tables.schema !== null) {
    const { rowCount } = await client.query("select 1 from pg_namespace where nspname = $1", [tables.schema]);
    if (rowCount) return tables.schema;
    throw new SaqError(
      "config",
      `The schema ${quote(tables.schema)} of tables.schema does not exist. Create it: ` +
        `create schema ${quote(tables.schema)};`,
    );
  }
  const { rows } = await client.query<{ schema: string | null }>(
    `select coalesce((select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where c.oid = pg_catalog.to_regclass($1)), current_schema()) as schema`,
    [quote(tables.jobs)],
  );
  const schema = rows[0]?.schema;
  if (!schema)
    throw new SaqError(
      "config",
      "The database role has no schema to use: no schema in its search_path exists.",
    );
  return schema;
}

/**
 * Returns the recorded version; 0 when a table or the record is missing. A version newer than ours is returned even
 * then, because it may have other tables.
 *
 * Reads the catalogs themselves. Functions such as to_regclass use a cache which, within a transaction, does not show
 * what another transaction has just committed (seen when ten processes started at once).
 */
async function readVersion(client: ClientBase, names: Names): Promise<number> {
  const { jobs, stats, versions: record } = names.tables;
  const { rows } = await client.query<{ name: string }>(
    `select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = any($2::text[])`,
    [names.schema, [jobs, stats, record]],
  );
  if (!rows.some(({ name }) => name === record)) return 0;
  const versions = await client.query<{ version: number }>(
    `select version from ${names.versions} order by version desc limit 1`,
  );
  const version = versions.rows[0]?.version ?? 0;
  return rows.length === 3 || version > schemaVersion ? version : 0;
}

/** Two keys of an advisory lock. */
type Lock = readonly [number, number];

/** True if another process has created the same table or index at the same moment. */
const isDuplicate = (error: unknown): boolean =>
  ["23505", "42P07", "42710"].includes(String((error as { code?: unknown } | null)?.code));

/**
 * Creates or upgrades the tables while it holds the lock. With `onlyMissing`, does nothing when the jobs table exists.
 * Returns false when another session holds the lock, another process has just created the same, or `onlyMissing`
 * applied.
 *
 * @throws SaqError config when the role may not create the tables
 */
async function tryToMigrate(
  client: ClientBase,
  names: Names,
  { lock, onlyMissing = false }: { lock: Lock; onlyMissing?: boolean },
): Promise<boolean> {
  await client.query(`${beginTransaction}; set local statement_timeout = ${migrationTimeoutMs}`);
  try {
    const { rows } = await client.query<{ acquired: boolean }>(
      "select pg_catalog.pg_try_advisory_xact_lock($1, $2) as acquired",
      [...lock],
    );
    const mayMigrate = rows[0]?.acquired === true && !(onlyMissing && (await hasJobs(client, names)));
    if (mayMigrate && (await readVersion(client, names)) < schemaVersion) await migrate(client, names);
    await client.query("commit");
    return mayMigrate;
  } catch (error) {
    await client.query("rollback").catch(() => {});
    if (isDuplicate(error)) return false;
    if (!isRefused(error)) throw error;
    const { rows } = await client.query<{ role: string }>(
      "select pg_catalog.quote_ident(current_user) as role",
    );
    const role = rows[0]?.role ?? "";
    throw new SaqError(
      "config",
      `The SAQ tables in schema "${names.schema}" are missing or older than version ${schemaVersion}, and role ` +
        `${role} may not create them. Connect once with a role that may, or: ` +
        `grant create on schema ${quote(names.schema)} to ${role};`,
      { cause: error },
    );
  }
}

/** Reads the catalog itself, for the reason given at `readVersion`. */
async function hasJobs(client: ClientBase, { schema, tables }: Names): Promise<boolean> {
  const { rowCount } = await client.query(
    "select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2",
    [schema, tables.jobs],
  );
  return Boolean(rowCount);
}

async function migrate(client: ClientBase, names: Names): Promise<void> {
  const statements = [
    ...((await hasJobs(client, names)) ? upgradeJobs(names) : createJobs(names)),
    ...createStats(names),
    `create table if not exists ${names.versions} (version integer)`,
  ];
  for (const text of statements) await client.query(withAnswerTimeout(text, migrationTimeoutMs));
  await recordVersion(client, names);
}

/**
 * Writes the version. SAQ's version table has no primary key: PostgreSQL refuses to delete its rows (55000) where all
 * tables are published, unless the table has a full replica identity.
 */
async function recordVersion(client: ClientBase, { schema, tables, versions }: Names): Promise<void> {
  const { rowCount: recorded } = await client.query(`select 1 from ${versions} limit 1`);
  if (recorded) {
    const { rowCount: published } = await client.query(
      "select 1 from pg_publication_tables where schemaname = $1 and tablename = $2",
      [schema, tables.versions],
    );
    if (published) await client.query(`alter table ${versions} replica identity full`);
    await client.query(`delete from ${versions}`);
  }
  await client.query(`insert into ${versions} (version) values (${schemaVersion})`);
}
