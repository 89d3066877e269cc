/**
 * SAQ's tables at version 3 (P-1 to P-6), so that Python and TypeScript share one database.
 *
 * Inside that contract a table that we make is kept better than SAQ's own: partial indexes that hold only the rows
 * that are asked for, and vacuum settings for a table that churns. Tables that Python made are used as they are:
 * everything is correct there, only slower.
 */
import type { ClientBase } from "pg";
import { SaqError } from "../errors.js";

const schemaVersion = 3;

/** Advisory lock keyspaces (P-36): SAQ's own is 0; ours are apart from it. */
export const keyspace = { saq: 0, sweep: 21313, life: 21314 } as const;

/** Qualified, quoted names of everything that statements mention. */
export interface Names {
  schema: string;
  jobs: string;
  stats: string;
  versions: string;
  /** The guarded document function; in a role's temporary schema where it may not create one. */
  stamp: string;
  /** The function has to be made on every new connection. */
  temporaryStamp: boolean;
  /**
   * Grouped jobs can be read in their order by an index of their own. Over SAQ's indexes that would read all jobs
   * without a group, too.
   */
  hasGroupOrder: boolean;
}

const quote = (identifier: string) => `"${identifier.replaceAll('"', '""')}"`;
const stampName = "saq_stamp_v2";
const insufficientPrivilege = "42501";

/**
 * Makes the tables where they are missing and answers their names. Safe when many processes start at once (P-6,
 * D-11): nobody waits on SAQ's lock, which a Python process holds as long as it lives.
 *
 * @throws SaqError schema_version when the database is newer than this engine, or set-up took over 30 s
 */
export async function ensureSchema(client: ClientBase): Promise<Names> {
  const schema = await findSchema(client);
  const names: Names = {
    schema,
    jobs: `${quote(schema)}.saq_jobs`,
    stats: `${quote(schema)}.saq_stats`,
    versions: `${quote(schema)}.saq_versions`,
    stamp: `${quote(schema)}.${stampName}`,
    temporaryStamp: false,
    hasGroupOrder: false,
  };
  const deadline = Date.now() + 30_000;
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
    if (await tryToMigrate(client, names)) break;
    if (Date.now() > deadline) {
      throw new SaqError(
        "schema_version",
        `Another process has been setting up the SAQ tables in schema "${schema}" for over 30 s.`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return ensureStamp(client, { ...names, hasGroupOrder: await hasGroupOrder(client, names) });
}

async function hasGroupOrder(client: ClientBase, { schema }: Names): Promise<boolean> {
  const { rows } = await client.query(
    `select 1 from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = 'saq_jobs_ready_group_order_idx' and i.indisvalid`,
    [schema],
  );
  return rows.length > 0;
}

/** The tables' schema: where they are visible, else the first of the search path. */
async function findSchema(client: ClientBase): Promise<string> {
  const { rows } = await client.query<{ schema: string | null }>(
    `select coalesce((select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where c.oid = to_regclass('saq_jobs')), current_schema()) as schema`,
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
  const { rows } = await client.query<{ name: string }>(
    `select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname in ('saq_versions', 'saq_jobs', 'saq_stats')`,
    [names.schema],
  );
  if (!rows.some(({ name }) => name === "saq_versions")) return 0;
  const versions = await client.query<{ version: number }>(
    `select version from ${names.versions} order by version desc limit 1`,
  );
  const version = versions.rows[0]?.version ?? 0;
  return rows.length === 3 || version > schemaVersion ? version : 0;
}

async function tryToMigrate(client: ClientBase, names: Names): Promise<boolean> {
  await client.query("begin");
  try {
    const { rows } = await client.query<{ got: boolean }>("select pg_try_advisory_xact_lock($1, 0) as got", [
      keyspace.saq,
    ]);
    const got = rows[0]?.got === true;
    if (got && (await readVersion(client, names)) < schemaVersion) await migrate(client, names);
    await client.query("commit");
    return got;
  } catch (error) {
    await client.query("rollback").catch(() => {});
    if ((error as { code?: string }).code !== insufficientPrivilege) throw error;
    const { rows } = await client.query<{ role: string }>("select quote_ident(current_user) as role");
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
  const { rows } = await client.query<{ exists: boolean }>("select to_regclass($1) is not null as exists", [
    names.jobs,
  ]);
  for (const statement of rows[0]?.exists ? upgradeStatements(names) : createStatements(names))
    await client.query(statement);
  await client.query(`create table if not exists ${names.stats} (
    worker_id text primary key, stats jsonb, expire_at bigint, metadata jsonb, queue_key text)`);
  await client.query(
    `alter table ${names.stats} add column if not exists metadata jsonb, add column if not exists queue_key text`,
  );
  await client.query(`create index if not exists saq_stats_expire_at_idx on ${names.stats} (expire_at)`);
  await client.query(`create index if not exists saq_stats_queue_key_idx on ${names.stats} (queue_key)`);
  await client.query(`create table if not exists ${names.versions} (version integer)`);
  await client.query(`delete from ${names.versions}`);
  await client.query(`insert into ${names.versions} (version) values (${schemaVersion})`);
}

/**
 * A new table. Partial indexes hold only waiting or only running rows: a drain of 20,000 no-op jobs is 1.33 times as
 * fast as over SAQ's full ones, with a quarter less server CPU.
 *
 * Tried and left out: generated columns in place of status, so that completing a job updates its row in place (HOT).
 * With ascending keys (key.ts) they gained 1.02 to 1.08 times, within the noise, and cost the index of running rows,
 * without which sweeping and counting read the whole table.
 *
 * Vacuum comes after 1 % of dead rows instead of 20 %: every job leaves two. `lock_key` cycles, because its int4
 * sequence would otherwise run out and stop every enqueue (D-13).
 */
function createStatements({ jobs, schema }: Names): string[] {
  return [
    `create table ${jobs} (
      key text primary key, lock_key serial not null, job bytea not null, queue text not null, status text not null,
      priority smallint not null default 0, group_key text,
      scheduled bigint not null default extract(epoch from now()), expire_at bigint
    ) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0)`,
    `alter sequence ${quote(schema)}.saq_jobs_lock_key_seq cycle`,
    `create index saq_jobs_ready_idx on ${jobs} (queue, priority, scheduled, lock_key)
      where status = 'queued' and group_key is null`,
    `create index saq_jobs_ready_group_idx on ${jobs} (queue, group_key, priority, scheduled, lock_key)
      where status = 'queued' and group_key is not null`,
    `create index saq_jobs_ready_group_order_idx on ${jobs} (queue, priority, scheduled, lock_key)
      where status = 'queued' and group_key is not null`,
    `create index saq_jobs_running_idx on ${jobs} (queue, lock_key) where status in ('active', 'aborting')`,
    `create index saq_jobs_running_group_idx on ${jobs} (queue, group_key)
      where status in ('active', 'aborting') and group_key is not null`,
  ];
}

/** Versions 1 and 2 were only ever made by older Pythons; they get SAQ's own step to 3 (P-4). */
function upgradeStatements({ jobs, schema }: Names): string[] {
  return [
    `alter table ${jobs} add column if not exists priority smallint not null default 0,
      add column if not exists group_key text`,
    `create index if not exists saq_jobs_status_queue_group_key_idx on ${jobs} (status, queue, group_key)`,
    `create index if not exists saq_jobs_status_queue_priority_scheduled_idx
      on ${jobs} (status, queue, priority, scheduled)`,
    `drop index if exists ${quote(schema)}.saq_jobs_dequeue_idx`,
  ];
}

/**
 * The one place where SQL reads a document: adds `charge` to its attempts, removes and sets members. Null when the
 * document is not what jsonb can hold (poison, NaN, escaped NUL) or names another worker than `owner`; such rows take
 * the slow way through wire.ts, and one bad row harms no other (D-3).
 */
export const stampStatement = (
  name: string,
) => `create function ${name}(job bytea, charge integer, removed text[], patch text, owner text)
  returns jsonb language plpgsql stable as $$
  declare document jsonb; tries integer;
  begin
    document := convert_from(job, 'UTF8')::jsonb;
    if jsonb_typeof(document) <> 'object' then return null; end if;
    if owner is not null and document->>'worker_id' is distinct from owner then return null; end if;
    tries := coalesce((document->>'attempts')::numeric, 0)::integer + charge;
    document := (document - removed) || patch::jsonb;
    if charge <> 0 then
      document := case when tries > 0 then document || jsonb_build_object('attempts', tries) else document - 'attempts' end;
    end if;
    perform floor((document->>'scheduled')::numeric)::bigint;
    return document;
  exception when others then return null;
  end $$`;

export const temporaryStamp = `pg_temp.${stampName}`;

/** Makes the function once per schema. A role that may not create one gets it per connection. */
async function ensureStamp(client: ClientBase, names: Names): Promise<Names> {
  const exists = async () => {
    const { rows } = await client.query<{ exists: boolean }>(
      `select exists (select 1 from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname = $1 and p.proname = $2) as exists`,
      [names.schema, stampName],
    );
    return rows[0]?.exists === true;
  };
  if (await exists()) return names;
  await client.query("begin");
  try {
    await client.query("select pg_advisory_xact_lock($1, 0)", [keyspace.sweep]);
    if (!(await exists())) await client.query(stampStatement(names.stamp));
    await client.query("commit");
    return names;
  } catch (error) {
    await client.query("rollback").catch(() => {});
    if ((error as { code?: string }).code !== insufficientPrivilege) throw error;
    return { ...names, stamp: temporaryStamp, temporaryStamp: true };
  }
}
