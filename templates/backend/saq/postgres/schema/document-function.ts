/**
 * The database function that changes documents as JSON and catches all errors. Statements that claim or settle many
 * jobs call it, unless only the end of the document changes (sql/document-suffix.ts).
 */
import { temporaryDocumentFunction } from "./names.js";

/**
 * The body of the function, the only place where SQL reads a document as JSON. It adds `charge` to the attempts,
 * removes and sets members, and changes the members of `meta` that the patch has under `meta+` (wire.ts). It returns
 * null when jsonb cannot hold the document (no JSON object, NaN, escaped NUL) or the document names another worker than
 * `owner`. Such rows are changed one by one through wire.ts, which is slower, but one bad row does not make the
 * statement fail for the other rows.
 *
 * Literals name their types, and functions that take arguments of any type name their schema. Otherwise a function that
 * somebody has created in a schema of the search path could match better, and would run with the rights of this worker.
 */
export const documentFunctionSource = `
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

/** The types of the function's arguments, as PostgreSQL lists them. */
export const documentFunctionArguments = "bytea, integer, text[], text, text";

/**
 * Returns the statement that creates the function under that name. In the temporary schema, which belongs to this
 * session alone, it replaces an existing function. Elsewhere it must not replace one, because a replaced function keeps
 * its owner.
 */
export const createDocumentFunction = (name: string): string =>
  `create ${name === temporaryDocumentFunction ? "or replace " : ""}function ${name}(
    job bytea, charge integer, removed text[], patch text, owner text)
  returns jsonb language plpgsql stable as $$${documentFunctionSource}$$`;
