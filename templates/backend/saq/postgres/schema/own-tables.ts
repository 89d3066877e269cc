/**
 * The tables of the engine's own, beside those of SAQ. Each is created when it is first needed, so that an application
 * that does not use it has none. The comment of a table contains its version, because a later engine may need another
 * table.
 */
import type { TableSession } from "../table-session.js";

/** A table of the engine's own. */
export interface OwnTable {
  /** Qualified and quoted. */
  name: string;
  /** Its comment: what it is for, and its version. */
  marker: string;
  /** Its columns and its primary key, as in `create table`. */
  columns: string;
}

const insufficientPrivilege = "42501";

/**
 * Returns the name of a table of our own beside a jobs table: `saq_cron` in the same schema, or the jobs table's name
 * with `_cron` when that name is not saq_jobs. `jobs` and the returned name are qualified and quoted.
 */
export function ownTableName(jobs: string, suffix: "cron" | "pauses"): string {
  const own = jobs.replace(/(?<=\.)"saq_jobs"$/, `"saq_${suffix}"`);
  return own === jobs ? jobs.replace(/"$/, `_${suffix}"`) : own;
}

/**
 * Creates the table if it is missing. Returns false if this role may not create it, may not use it, or if another
 * program has a table of this name.
 */
export async function ensureOwnTable(
  session: TableSession,
  { name, marker, columns }: OwnTable,
): Promise<boolean> {
  const usable = (): Promise<boolean | null> =>
    session.pool.transaction(async (client) => {
      const { rows } = await client.query<{ usable: boolean | null }>(
        `select pg_catalog.obj_description(t.oid, 'pg_class') = $2 and pg_catalog.has_table_privilege(t.oid, 'select')
           and pg_catalog.has_table_privilege(t.oid, 'insert') and pg_catalog.has_table_privilege(t.oid, 'update')
           and pg_catalog.has_table_privilege(t.oid, 'delete') as usable
         from (select pg_catalog.to_regclass($1) as oid) t where t.oid is not null`,
        [name, marker],
      );
      return rows[0] ? rows[0].usable === true : null;
    });
  const found = await usable();
  if (found !== null) return found;
  try {
    // When two processes create a table at the same moment, "if not exists" fails for one of them, hence the lock. The
    // table and its comment are created in one transaction, so that nobody sees the one without the other.
    await session.pool.transaction(async (client) => {
      await client.query("select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext($1))", [name]);
      await client.query(`create table if not exists ${name} (${columns})`);
      await client.query(`comment on table ${name} is '${marker}'`);
    });
  } catch (error) {
    if ((error as { code?: string }).code !== insufficientPrivilege) throw error;
  }
  return (await usable()) === true;
}
