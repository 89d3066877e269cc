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

/**
 * Makes the tables where they are missing and answers their names. Safe when many processes start at once (P-6,
 * D-11): nobody waits on SAQ's lock, which a Python process holds as long as it lives.
 *
 * @throws SaqError schema_version when the database is newer than this engine, or set-up took over 30 s
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
  const schema = await findSchema(client, tables);
  const names = namesIn(schema, tables);
  const deadline = performance.now() + 30_000;
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
    if (await tryToMigrate(client, names, lockKeyspace)) break;
    if (performance.now() > deadline) {
      throw new SaqError(
        "schema_version",
        `Another process has been setting up the SAQ tables in schema "${schema}" for over 30 s.`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const found = { ...names, hasGroupOrder: await hasGroupOrder(client, names) };
  return ensureFunctions(client, found, { plain, logger });
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

async function tryToMigrate(client: ClientBase, names: Names, lockKeyspace: number): Promise<boolean> {
  await client.query(`${beginTransaction}; set local statement_timeout = ${migrationTimeoutMs}`);
  try {
    const { rows } = await client.query<{ got: boolean }>(
      "select pg_catalog.pg_try_advisory_xact_lock($1, 0) as got",
      [lockKeyspace],
    );
    const got = rows[0]?.got === true;
    if (got && (await readVersion(client, names)) < schemaVersion) await migrate(client, names);
    await client.query("commit");
    return got;
  } catch (error) {
    await client.query("rollback").catch(() => {});
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

async function migrate(client: ClientBase, names: Names): Promise<void> {
  // From the catalog itself, as in `readVersion`.
  const { rowCount: exists } = await client.query(
    "select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2",
    [names.schema, names.tables.jobs],
  );
  const statements = [
    ...(exists ? upgradeJobs(names) : createJobs(names)),
    ...createStats(names),
    `create table if not exists ${names.versions} (version integer)`,
    `delete from ${names.versions}`,
    `insert into ${names.versions} (version) values (${schemaVersion})`,
  ];
  for (const text of statements) await client.query(withTimeout(text, migrationTimeoutMs));
}
