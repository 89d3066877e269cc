/** The statements that claim jobs: ungrouped jobs in one statement, grouped jobs while their groups are locked. */

import { maxReadBytes } from "../../core/byte-size.js";
import { groupStatements } from "./claim-groups.js";
import { claimedSuffix, encodedDocument, freshClaimed, freshDue } from "./document-suffix.js";
import { epoch, type Fragments } from "./fragments.js";

const epochMs = "pg_catalog.floor(extract(epoch from clock_timestamp()) * 1000.0)::bigint";

/**
 * Returns SQL for the bytes of the documents up to this row. The rows are in order already, and `row_number()` uses the
 * same window. With subqueries that added the sizes up, a claim of one job took 1.10 times as long as without a limit,
 * now 1.05 times: the server prepares each node of the plan at each execution.
 */
const sizeSoFar = (job: string) => `sum(pg_catalog.octet_length(${job})) over (rows unbounded preceding)`;

export function claimStatements(fragments: Fragments) {
  const { jobs, ready, readable, editedDocument, prioritiesOf } = fragments;

  // The total size of the documents of one claim is limited: 100 documents of 4 MB took longer than the timeout of a
  // claim, and 2,000 of them would end the process. The first document is claimed whatever its size.
  const isWithinLimit = `coalesce(bytes <= ${maxReadBytes} or bytes = pg_catalog.octet_length(job), true)`;

  // Makes the rows of `picked` active (tid, key, job, bytes, lock_key, due, ordinal). $5 token, $6 patch of the
  // document. A fresh document (see `freshDue`) is returned as it was, with `started`: the caller knows its new suffix.
  // A document that SQL cannot change (see document-function.ts), or that is not a job of this queue and key, keeps its
  // bytes. Its row is returned without a document: the caller owns the row by its token and decides what to do. The
  // patch is a subquery of its own, so that it is built once per statement and not once per row (a claim of 500: 19.0
  // -> 17.5 us of server CPU per row).
  const startedPatch = "(select patch from moment)";
  const activate = `moment as materialized (
      select ms, ($6::jsonb || pg_catalog.jsonb_build_object('started', ms, 'touched', ms))::text as patch,
        pg_catalog.convert_to(${claimedSuffix("($6::jsonb->'worker_id'::text)::text", "ms")}, 'UTF8') as suffix
      from (select ${epochMs} as ms offset 0) m)
    update ${jobs} j set status = 'active', lock_key = $5, scheduled = s.scheduled,
      job = coalesce(s.fresh, pg_catalog.convert_to(s.document, 'UTF8'), j.job)
    from (select p.tid, p.key, p.ordinal, p.lock_key, p.due, p.job,
        case when f.due is not null then pg_catalog.encode(p.job, 'escape')
          when d.document->>'queue'::text = $1 and d.document->>'key'::text = p.key
          and pg_catalog.jsonb_typeof(d.document->'function'::text) = 'string' then d.document::text end as document,
        case when f.due is not null then ${freshClaimed("p.job", "(select suffix from moment)")} end as fresh,
        coalesce(f.due, pg_catalog.floor((d.document->>'scheduled'::text)::numeric)::bigint, 0) as scheduled
      from (select * from picked where ${isWithinLimit}) p
      cross join lateral (select ${freshDue("p.job", "p.due")} as due offset 0) f
      cross join lateral (select case when f.due is null
        then ${editedDocument("p.job", "1", "'{}'", startedPatch, "null")} end as document offset 0) d offset 0) s
    where j.ctid = s.tid
    returning j.key, s.ordinal::int, s.lock_key as place, s.due::text,
      case when s.fresh is null then s.document else ${encodedDocument("s.job", "s.document")} end as document,
      case when s.fresh is not null then (select ms from moment)::text end as started`;

  // $1 queue, $2 lowest and $3 highest priority, $4 limit. The limit is below the window: a window reads one row more
  // than it returns, and each row that is read is locked.
  const claim = `with recursive ${prioritiesOf(ready("j"))},
    picked as materialized (
      select r.*, row_number() over (rows unbounded preceding) as ordinal, ${sizeSoFar("r.job")} as bytes
      from (select r.* from step cross join lateral (
        select j.ctid as tid, j.key, ${readable("j.job")} as job, j.lock_key, j.scheduled as due from ${jobs} j
        where j.queue = $1 and ${ready("j")} and j.priority = step.priority and j.scheduled <= ${epoch}
        order by j.scheduled, j.lock_key limit $4 for update of j skip locked) r
      limit $4) r),
    ${activate}`;

  return { claim, ...groupStatements(fragments, sizeSoFar, activate) };
}
