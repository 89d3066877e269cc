/**
 * Makes SAQ's tables at version 3 where they are missing (P-1 to P-6), so that Python and TypeScript share one
 * database. Alters nothing but what it has just made, and what is older than version 3.
 */
import type { ClientBase } from "pg";
import { SaqError } from "../errors.js";
import { type Logger, silentLogger } from "../logger.js";
import { isRefused, withTimeout } from "./connection.js";
import { ensureFunctions } from "./functions.js";
import { createJobs, createStats, indexName, upgradeJobs } from "./layout.js";
import { keyspace, type Names, namesIn, quote, saqTables, type TableSet } from "./names.js";
import { beginTransaction, migrationTimeoutMs } from "./session-settings.js";

/** SAQ's, and there is no other: tables of our own would have a record of their own. */
export const schemaVersion = 3;

export interface SchemaOptions {
  tables: TableSet;
  /** Of the advisory lock under which the tables are made (P-36). */
  lockKeyspace: number;
  /** A connection is not the same session from one statement to the next. */
  plain: boolean;
  logger: Logger;
}

/** How long missing tables of SAQ's own names are left to the process that holds the set-up lock, ms. */
const lockWaitMs = 5_000;
/** How long older tables are left to it, ms. */
const upgradeWaitMs = 30_000;

/**
 * Makes the tables where they are missing and returns their names. Safe when many processes start at once (P-6, D-11).
 *
 * A Python process holds the set-up lock as long as it lives, whatever its tables and its schema. So the lock alone
 * does not say that somebody is at work: tables that are missing although it is held are made all the same, at once
 * where they are not SAQ's usual ones, else after 5 s.
 *
 * @throws SaqError config when the database is not in UTF8; schema_version when its tables are newer than this engine,
 * or older while another process holds the set-up lock for 30 s
 */
export async function ensureSchema(
  client: ClientBase,
  {
    tables = saqTables,
    lockKeyspace = keyspace.saq,
    plain = false,
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
        `The SAQ tables in schema "${schema}" are at version ${found}, this engine knows version ${schemaVersion}. ` +
          "A newer SAQ uses this database: update this application, or give it a database of its own (QUEUE_DSN).",
      );
    }
    if (await tryToMigrate(client, names, { lock: [lockKeyspace, 0] })) break;
    const waited = performance.now() - began;
    const wait = isUsual(tables) ? lockWaitMs : 0;
    if (waited >= wait && (await tryToMigrate(client, names, { lock: ownLock, onlyMissing: true }))) continue;
    if (waited > upgradeWaitMs) throw await lockHeld(client, names, { found, lockKeyspace });
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const found = { ...names, hasGroupOrder: await hasGroupOrder(client, names) };
  return ensureFunctions(client, found, { plain, logger });
}

const ownLock: Lock = [keyspace.sweep, 1];

/** Python, too, would make these at its start, with the set-up lock. */
const isUsual = ({ schema, jobs, stats, versions }: TableSet): boolean =>
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
    `Database ${quote(name)} has the encoding ${encoding}, in which most texts of jobs cannot be stored; the queue needs ` +
      "one in UTF8: create database NAME encoding 'UTF8' template template0;",
  );
}

/** The tables are older than version 3, and whoever holds the set-up lock has not changed that. */
async function lockHeld(
  client: ClientBase,
  { schema }: Names,
  { found, lockKeyspace }: { found: number; lockKeyspace: number },
): Promise<SaqError> {
  const { rows } = await client.query<{ pid: number; name: string | null }>(
    `select l.pid, a.application_name as name from pg_locks l left join pg_stat_activity a on a.pid = l.pid
     where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.objid = 0 and l.classid::bigint = $1::bigint
       and l.database = (select d.oid from pg_database d where d.datname = current_database())`,
    // An oid has no sign.
    [lockKeyspace < 0 ? lockKeyspace + 2 ** 32 : lockKeyspace],
  );
  const holders = rows.map(({ pid, name }) => `${pid}${name ? ` (${name})` : ""}`).join(", ");
  return new SaqError(
    "schema_version",
    `The SAQ tables in schema "${schema}" are incomplete or at version ${found}, and could not be upgraded to version ` +
      `${schemaVersion} within ${upgradeWaitMs / 1_000} s: the set-up lock (${lockKeyspace}, 0) is held by server process ${holders || "(unknown)"}. ` +
      "A Python SAQ holds it as long as it runs: stop it, start this application once, and start it again; or update it " +
      "to SAQ 0.26.1 or later, which upgrades the tables itself.",
  );
}

/** Where the tables are and which version they have; 0 when they are not all there. Changes nothing. */
export async function findTables(
  client: ClientBase,
  tables: TableSet,
): Promise<{ names: Names; version: number }> {
  const names = namesIn(await findSchema(client, tables), tables);
  return { names, version: await readVersion(client, names) };
}

async function hasGroupOrder(client: ClientBase, { schema, tables }: Names): Promise<boolean> {
  const { rows } = await client.query(
    `select 1 from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = $2 and i.indisvalid`,
    [schema, indexName(tables.jobs, "ready_group_order")],
  );
  return rows.length > 0;
}

/** The tables' schema: where they are visible, else the first of the search path. */
async function findSchema(client: ClientBase, tables: TableSet): Promise<string> {
  if (tables.schema !== null) {
    const { rowCount } = await client.query("select 1 from pg_namespace where nspname = $1", [tables.schema]);
    if (rowCount) return tables.schema;
    throw new SaqError(
      "config",
      `There is no schema ${quote(tables.schema)}, which tables.schema names. Create it: create schema ${quote(tables.schema)};`,
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
      "The database role has no schema to use: its search_path names none that exists.",
    );
  return schema;
}

/**
 * 0 when the tables are not all there. A newer version is newer whatever its tables are called.
 *
 * What is there is read from the catalogs themselves: to_regclass and its like answer from a cache that does not learn
 * within a transaction what another one has just committed (seen with ten processes that start at once).
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

/** Another process has created the same at the same moment. */
const isDuplicate = (error: unknown): boolean =>
  ["23505", "42P07", "42710"].includes(String((error as { code?: unknown } | null)?.code));

/** Answers whether the lock was free. With `onlyMissing`, tables that are there are left as they are. */
async function tryToMigrate(
  client: ClientBase,
  names: Names,
  { lock, onlyMissing = false }: { lock: Lock; onlyMissing?: boolean },
): Promise<boolean> {
  await client.query(`${beginTransaction}; set local statement_timeout = ${migrationTimeoutMs}`);
  try {
    const { rows } = await client.query<{ got: boolean }>(
      "select pg_catalog.pg_try_advisory_xact_lock($1, $2) as got",
      [...lock],
    );
    const got = rows[0]?.got === true && !(onlyMissing && (await hasJobs(client, names)));
    if (got && (await readVersion(client, names)) < schemaVersion) await migrate(client, names);
    await client.query("commit");
    return got;
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
      `The SAQ tables in schema "${names.schema}" are missing or older than version ${schemaVersion}, and role ${role} ` +
        `may not create them. Connect once with a role that may, or: grant create on schema ${quote(names.schema)} to ${role};`,
      { cause: error },
    );
  }
}

/** From the catalog itself, as in `readVersion`. */
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
  for (const text of statements) await client.query(withTimeout(text, migrationTimeoutMs));
  await recordVersion(client, names);
}

/** The record has no primary key (P-2), and where all tables are published no row of it may be deleted (55000). */
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
