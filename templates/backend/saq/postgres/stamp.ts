/** The guarded document function: made once per schema, or per connection where the role may not create one. */
import type { ClientBase } from "pg";
import { isRefused } from "./connection.js";
import { keyspace, type Names, quote, stampName, temporaryStamp } from "./names.js";

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

/**
 * Makes the function once per schema. A role that may not create one gets it per connection; where connections have no
 * session, it does without.
 */
export async function ensureStamp(client: ClientBase, names: Names, plain: boolean): Promise<Names> {
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
    if (!(await exists())) await client.query(stampStatement(`${quote(names.schema)}.${stampName}`));
    await client.query("commit");
    return names;
  } catch (error) {
    await client.query("rollback").catch(() => {});
    if (!isRefused(error)) throw error;
    return plain ? { ...names, stamp: null } : { ...names, stamp: temporaryStamp, temporaryStamp: true };
  }
}
