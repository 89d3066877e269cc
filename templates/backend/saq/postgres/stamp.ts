/**
 * The guarded document function, which claims and acknowledgements of many jobs go through, unless the document's end is
 * all that changes (ending.ts).
 */
import { temporaryStamp } from "./names.js";

/**
 * The one place where SQL reads a document as JSON: adds `charge` to its attempts, removes and sets members, and those
 * of `meta` that the patch has under `meta+` (wire.ts). Null when the document is not what jsonb can hold (poison, NaN,
 * escaped NUL) or names another worker than `owner`; such rows take the slow way through wire.ts, and one bad row harms
 * no other (D-3).
 *
 * Literals tell their types and functions of any arguments their schema: a better match that somebody has created in a
 * schema of the search path would otherwise be called instead, with the rights of this worker.
 */
export const stampSource = `
  declare document jsonb; tries integer; marks jsonb; meta jsonb;
  begin
    document := pg_catalog.convert_from(job, 'UTF8')::jsonb;
    if jsonb_typeof(document) <> 'object' then return null; end if;
    if owner is not null and document->>'worker_id'::text is distinct from owner then return null; end if;
    tries := coalesce((document->>'attempts'::text)::numeric, 0)::integer + charge;
    document := (document - removed) || patch::jsonb;
    if charge <> 0 then
      document := case when tries > 0 then document || pg_catalog.jsonb_build_object('attempts', tries)
        else document - 'attempts'::text end;
    end if;
    if document ? 'meta+'::text then
      marks := document->'meta+'::text;
      meta := case when jsonb_typeof(document->'meta'::text) = 'object' then document->'meta'::text else '{}' end;
      meta := (meta || marks) - array(select m.key from pg_catalog.jsonb_each(marks) m where m.value = 'null'::jsonb);
      document := document - 'meta+'::text - 'meta'::text;
      if meta <> '{}'::jsonb then document := document || pg_catalog.jsonb_build_object('meta', meta); end if;
    end if;
    perform floor((document->>'scheduled'::text)::numeric)::bigint;
    return document;
  exception when others then return null;
  end `;

/** As PostgreSQL lists their types. */
export const stampArguments = "bytea, integer, text[], text, text";

/**
 * Makes the function under that name. In the temporary schema, which is this connection's own, it takes the place of
 * one that is there; elsewhere it must not: the owner of that one would keep it.
 */
export const stampStatement = (name: string): string =>
  `create ${name === temporaryStamp ? "or replace " : ""}function ${name}(job bytea, charge integer, removed text[], patch text, owner text)
  returns jsonb language plpgsql stable as $$${stampSource}$$`;
