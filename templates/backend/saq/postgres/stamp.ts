/**
 * The guarded document function, which claims and acknowledgements of many jobs go through, unless the document's end is
 * all that changes (ending.ts).
 */

/**
 * The one place where SQL reads a document as JSON: adds `charge` to its attempts, removes and sets members. Null when the
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
