/**
 * The statements on the table saq_pauses, and statements that a worker sends anyway and that read the pauses in
 * passing.
 */
import type { OwnTable } from "../schema/own-tables.js";
import { clock, epochMs } from "./fragments.js";

const marker = "create-saq-app: pauses, version 1";

/** One row per target that is or was paused. Times are epoch ms; a pause without an end lasts until it is removed. */
export const pausesTable = (name: string): OwnTable => ({
  name,
  marker,
  columns: `queue text not null, kind text not null, name text not null, paused_at bigint not null, ends_at bigint,
    paused_by text, reason text, primary key (queue, kind, name)`,
});

/** `table`: qualified and quoted. The other members are statements that do not read the pauses. */
export function pauseStatements({
  table,
  hasGrouped,
  nextWork,
  saveWorker,
  workerAges,
}: {
  table: string;
  hasGrouped: string;
  nextWork: string;
  /** The part that stores the worker's row ($5: queue). */
  saveWorker: string;
  workerAges: (queue: string, more: string) => string;
}) {
  const isInEffect = `(p.ends_at is null or p.ends_at > ${epochMs})`;
  const pauses = (queue: string) => `(select coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
      p.kind, p.name, p.paused_at, p.ends_at, p.paused_by, p.reason))::text, '[]')
    from ${table} p where p.queue = ${queue} and ${isInEffect})`;
  const oid = `pg_catalog.to_regclass('${table.replaceAll("'", "''")}')`;
  // While the table does not exist, no statement may name it. Null: it does not exist, or is another program's.
  const look = `case when pg_catalog.obj_description(${oid}, 'pg_class') = '${marker}' then
      case when pg_catalog.has_table_privilege(${oid}, 'select') then 'readable' else 'refused' end end`;
  const readBeside = (text: string, read: string) => `select q.*, ${read} as pauses from (${text}) q`;
  // The pauses are in a row of their own, because every row of a worker would repeat them.
  const save = (read: string) => `${saveWorker} ${workerAges("$5", ", null::text as pauses")}
      union all select null::text, false, 0::float8, ${clock}, null::float8, ${read}`;
  const isOther = "not (p.kind = $2 and p.name = $3)";
  const expired = `expired as (delete from ${table} p where p.queue = $1 and p.ends_at <= ${epochMs} and ${isOther})`;

  return {
    saveWorker: save(look),
    saveWorkerAndPauses: save(pauses("$5")),
    hasGroupedAndLook: readBeside(hasGrouped, look),
    hasGroupedAndPauses: readBeside(hasGrouped, pauses("$1")),
    nextWorkAndLook: readBeside(nextWork, look),
    nextWorkAndPauses: readBeside(nextWork, pauses("$1")),
    lookForPauses: `select ${look} as pauses`,
    listPauses: `select ${pauses("$1")} as pauses`,
    // $1 queue, $2 kind, $3 name, $4 seconds, $5 who, $6 reason, $7 channel and $8 payload of the notification. Pauses
    // of other targets that have ended are deleted.
    setPause: `with ${expired},
      stored as (insert into ${table} as existing (queue, kind, name, paused_at, ends_at, paused_by, reason)
        select $1::text, $2::text, $3::text, m.ms, m.ms + pg_catalog.ceil($4::float8 * 1000::float8)::bigint, $5::text,
          $6::text from (select ${epochMs} as ms offset 0) m
        on conflict (queue, kind, name) do update set paused_at = excluded.paused_at, ends_at = excluded.ends_at,
          paused_by = excluded.paused_by, reason = excluded.reason
        returning existing.paused_at, existing.ends_at)
      select s.paused_at::float8 as since, s.ends_at::float8 as until,
        pg_catalog.pg_notify($7::text, $8::text) as notified
      from stored s`,
    // $1 queue, $2 kind, $3 name, $4 channel and $5 payload of the notification.
    removePause: `with ${expired},
      removed as (delete from ${table} p where p.queue = $1 and p.kind = $2 and p.name = $3 returning p.ends_at)
      select ${isInEffect} as active, pg_catalog.pg_notify($4::text, $5::text) as notified from removed p`,
  };
}
